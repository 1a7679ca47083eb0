// Follows one sequence in JavaScript, with the stock gRPC client: each line of standard input is a step.
//
//   npm install
//   printf '0.8,1,0\n-0.5,0,0\n0.1,0,1\n' | node follow.js localhost:50051 recall
//
// TIDEGATE_CA names a certificate file for TLS, TIDEGATE_TOKEN a token, as for Tidegate's own clients.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { createInterface } = require("node:readline");
const { Metadata, credentials, loadPackageDefinition } = require("@grpc/grpc-js");
const { loadSync } = require("@grpc/proto-loader");

const [address, model] = process.argv.slice(2);
const includeDirs = [process.env.TIDEGATE_PROTO || join(__dirname, "../../proto")];
const files = ["tidegate/v1/tidegate.proto", "tidegate/v1/sequence.proto"];
const { Tidegate } = loadPackageDefinition(loadSync(files, { includeDirs, keepCase: true, oneofs: true })).tidegate.v1;

const { TIDEGATE_CA: ca, TIDEGATE_TOKEN: token } = process.env;
const client = new Tidegate(address, ca ? credentials.createSsl(readFileSync(ca)) : credentials.createInsecure());
const metadata = new Metadata();
if (token) metadata.set("authorization", `Bearer ${token}`);

const FLOAT32 = 1;
const ENCODING_VALUES = 2; // numbers in the answers, not bytes

async function next(responses, kind) {
  for (;;) {
    const { value } = await responses.next();
    if (value.response === kind) return value[kind];
    if (value.response === "failure") throw new Error(value.failure.error.message);
    // Checkpointed: the steps before it need not be kept for a resume, which this client does not do.
  }
}

async function follow(call) {
  const responses = call[Symbol.asyncIterator](); // an error of the call is thrown here
  call.write({ open: { handle: 0, model, encoding: ENCODING_VALUES } });
  await next(responses, "opened");
  let step = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const values = line.split(",").map(Number);
    const inputs = [{ type: FLOAT32, shape: [1, values.length], values }];
    call.write({ steps: { handle: 0, first_step: step, inputs } });
    const { outputs } = await next(responses, "answers");
    console.log(`${step}: ${outputs[0].values.map((number) => number.toFixed(2))}`);
    step += 1;
  }
  call.write({ close: { handle: 0 } });
  await next(responses, "closed");
}

const call = client.Stream(metadata);
follow(call)
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  .finally(() => {
    call.cancel();
    client.close();
    process.stdin.destroy();
  });
