// What a client in JavaScript does with a server: `node client.js ADDRESS PROTO CASE`. Each case prints its outcome.
const { credentials, loadPackageDefinition, status } = require("@grpc/grpc-js");
const { loadSync } = require("@grpc/proto-loader");
const { readFileSync } = require("fs");

const [address, proto, name] = process.argv.slice(2);
const files = ["tidegate/v1/tidegate.proto", "tidegate/v1/sequence.proto"];
const { Tidegate } = loadPackageDefinition(loadSync(files, { includeDirs: [proto], keepCase: true })).tidegate.v1;
const ca = process.env.TIDEGATE_CA; // the server speaks TLS
const access = ca ? credentials.createSsl(readFileSync(ca)) : credentials.createInsecure();
const client = new Tidegate(address, access, { "grpc.max_receive_message_length": -1 });
const open = { open: { handle: 0, count: 1, model: "recall" } };
const rows = (first, count) => ({
  steps: { handle: 0, first_step: first, inputs: [{ type: 1, shape: [count, 3], data: Buffer.alloc(12 * count) }] },
});

function say(outcome) {
  console.log(outcome);
  client.close();
}

function stream(options = {}) {
  const call = client.Stream(options);
  call.on("error", () => {}); // its status is what is printed
  return call;
}

const count = (message) => 1 + (message.more ? message.more.length : 0);

const cases = {
  unary: () => client.ListModels({}, (error, answer) => say(error || answer.models[0].name)),

  deadline: () => {
    const call = stream({ deadline: Date.now() + 200 });
    call.on("data", () => {}).on("status", ({ code }) => say(status[code]));
    call.write(open);
  },

  cancel: () => {
    const call = stream();
    call.on("data", () => call.cancel()).on("status", ({ code }) => say(status[code]));
    call.write(open);
  },

  steps: () => {
    let heard = 0;
    const call = stream();
    call.on("data", (message) => (heard += count(message))).on("status", ({ code }) => say(`${status[code]} ${heard}`));
    call.write(open);
    for (let step = 0; step < 2000; step++) call.write(rows(step, 1));
    call.end({ close: { handle: 0, count: 1 } });
  },

  late: () => {
    let heard = 0;
    const call = stream();
    call.write(open);
    for (let step = 0; step < 5000; step++) call.write(rows(step, 1));
    call.end({ close: { handle: 0, count: 1 } });
    setTimeout(() => call.on("data", (message) => (heard += count(message))), 500);
    call.on("status", ({ code }) => say(`${status[code]} ${heard}`));
  },

  large: () => {
    const request = { model: "recall", inputs: rows(0, 20000).steps.inputs };
    client.Predict(request, (error, answer) => say(error || answer.outputs[0].shape[0].toString()));
  },

  drain: () => {
    let step = 0;
    const call = stream();
    call.on("data", () => {
      if (step === 100) console.log("streaming");
      call.write(rows(step++, 1));
    });
    call.on("status", ({ code, details }) => say(step > 100 ? status[code] : `${status[code]}, ${step} steps: ${details}`));
    call.write(open);
  },
};

cases[name]();
