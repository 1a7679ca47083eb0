// What a client in C++ does with a server: `client ADDRESS CASE`. Each case prints its outcome.
//
// TIDEGATE_CA, TIDEGATE_CERT and TIDEGATE_KEY name files for TLS, TIDEGATE_TOKEN_FILE one with a token.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "tidegate/v1/tidegate.grpc.pb.h"

namespace {

using namespace tidegate::v1;
using std::chrono::milliseconds;

constexpr char kModel[] = "recall";
constexpr int kFeatures = 3;
constexpr int kRowBytes = 4 * kFeatures;
constexpr int kDrained = 3000;  // steps of the sequence that outlives a server
constexpr int kAhead = 32;      // of them that may be unanswered

std::string Read(const char* file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::shared_ptr<grpc::ChannelCredentials> Security() {
  const char* ca = std::getenv("TIDEGATE_CA");
  if (ca == nullptr) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = Read(ca);
  if (const char* cert = std::getenv("TIDEGATE_CERT")) {
    options.pem_cert_chain = Read(cert);
    options.pem_private_key = Read(std::getenv("TIDEGATE_KEY"));
  }
  return grpc::SslCredentials(options);
}

// The context of a call, with the token.
std::unique_ptr<grpc::ClientContext> Context(milliseconds limit = std::chrono::minutes(1)) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + limit);
  if (const char* file = std::getenv("TIDEGATE_TOKEN_FILE")) {
    std::string token = Read(file);
    token.erase(token.find_last_not_of("\n") + 1);
    context->AddMetadata("authorization", "Bearer " + token);
  }
  return context;
}

StreamRequest Open() {
  StreamRequest request;
  request.mutable_open()->set_model(kModel);
  request.mutable_open()->mutable_trace()->set_none(true);
  return request;
}

void FillRows(int count, char fill, Tensor* tensor) {
  std::string data(kRowBytes * count, '\0');
  for (size_t i = 0; i < data.size(); i += 4) {  // floats of about 0.5 to 2
    data[i] = fill;
    data[i + 3] = 0x3f;
  }
  tensor->set_type(DATA_TYPE_FLOAT32);
  tensor->add_shape(count);
  tensor->add_shape(kFeatures);
  tensor->set_data(std::move(data));
}

StreamRequest OneStep(int first) {
  StreamRequest request;
  request.mutable_steps()->set_first_step(first);
  FillRows(1, static_cast<char>(first), request.mutable_steps()->add_inputs());
  return request;
}

StreamRequest Closing() {
  StreamRequest request;
  request.mutable_close()->set_count(1);
  return request;
}

// The name of the code with which a call ended.
std::string Outcome(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK: return "OK";
    case grpc::StatusCode::CANCELLED: return "CANCELLED";
    case grpc::StatusCode::DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case grpc::StatusCode::UNAUTHENTICATED: return "UNAUTHENTICATED";
    case grpc::StatusCode::UNAVAILABLE: return "UNAVAILABLE";
    default: return std::to_string(status.error_code()) + " " + status.error_message();
  }
}

// Sends single steps and a close, reads from a moment on, and counts the steps that were answered.
std::string Take(Tidegate::Stub& stub, int count, milliseconds late = milliseconds(0)) {
  auto context = Context();
  auto stream = stub.Stream(context.get());
  std::thread sending([&] {
    stream->Write(Open());
    for (int step = 0; step < count; ++step) stream->Write(OneStep(step));
    stream->Write(Closing());
    stream->WritesDone();
  });
  std::this_thread::sleep_for(late);
  StreamResponse message;
  int64_t heard = 0;
  while (stream->Read(&message)) {
    if (message.has_answers()) heard += message.answers().outputs(0).shape(0);
  }
  sending.join();
  return Outcome(stream->Finish()) + " " + std::to_string(heard);
}

// One sequence that goes on after the loss of a server.
class Follower {
 public:
  // Goes on with the sequence; false: the stream was lost before its end.
  bool Attempt(Tidegate::Stub& stub) {
    auto context = Context();
    context->set_wait_for_ready(true);
    auto stream = stub.Stream(context.get());
    stream->Write(First());
    StreamResponse message;
    while (answered_ < kDrained && stream->Read(&message) && Hear(message)) {
      while (next_ < kDrained && next_ < answered_ + kAhead && stream->Write(OneStep(next_))) ++next_;
    }
    const bool whole = answered_ == kDrained;
    if (whole) stream->Write(Closing());
    context->TryCancel();
    stream->Finish();
    return whole;
  }

  std::string Story() const {
    return std::to_string(answered_) + " answers, sum " + std::to_string(sum_);
  }

 private:
  StreamRequest First() const {
    if (id_.empty()) return Open();
    StreamRequest request;
    Resume* resume = request.mutable_resume();
    resume->add_sequence_ids(id_);
    resume->set_resume_token(token_);
    resume->add_answered(answered_);
    resume->mutable_trace()->set_none(true);
    return request;
  }

  // Takes up what a message says; false: it ends this stream's part in the sequence.
  bool Hear(const StreamResponse& message) {
    if (message.has_opened()) {
      const Opened& opened = message.opened();
      id_ = opened.sequence_ids(0);
      if (!opened.resume_token().empty()) token_ = opened.resume_token();
      next_ = opened.next_steps().empty() ? 0 : opened.next_steps(0);
    } else if (message.has_answers()) {
      Count(message.answers());
    }
    return !message.has_failure() && !message.has_released();
  }

  // Takes up the answers that are new.
  void Count(const Answers& answers) {
    const Tensor& output = answers.outputs(0);
    const size_t size = output.data().size() / output.shape(0);
    for (int64_t i = 0; i < output.shape(0); ++i) {
      if (static_cast<int64_t>(answers.first_step()) + i != answered_) continue;
      for (size_t at = i * size; at < (i + 1) * size; ++at) {
        sum_ = (sum_ ^ static_cast<unsigned char>(output.data()[at])) * 1099511628211u;  // FNV-1a
      }
      ++answered_;
    }
    if (answered_ >= kDrained / 10 && !told_) {
      told_ = true;
      std::cout << "streaming" << std::endl;
    }
  }

  std::string id_, token_;
  int64_t next_ = 0;  // the step that is sent next
  int64_t answered_ = 0;
  uint64_t sum_ = 14695981039346656037u;  // of all answers
  bool told_ = false;
};

std::string Drain(Tidegate::Stub& stub) {
  Follower one;
  int losses = 0;
  while (!one.Attempt(stub) && ++losses < 500) std::this_thread::sleep_for(milliseconds(20));
  return one.Story() + ", lost a stream: " + (losses > 0 ? "true" : "false");
}

std::string Unary(Tidegate::Stub& stub) {
  ListModelsResponse answer;
  auto context = Context();
  const grpc::Status status = stub.ListModels(context.get(), {}, &answer);
  return status.ok() ? answer.models(0).name() : Outcome(status);
}

std::string Deadline(Tidegate::Stub& stub) {
  auto context = Context(milliseconds(200));
  auto stream = stub.Stream(context.get());
  stream->Write(Open());
  for (StreamResponse message; stream->Read(&message);) {
  }
  return Outcome(stream->Finish());
}

std::string Cancel(Tidegate::Stub& stub) {
  auto context = Context();
  auto stream = stub.Stream(context.get());
  stream->Write(Open());
  StreamResponse message;
  stream->Read(&message);
  context->TryCancel();
  while (stream->Read(&message)) {
  }
  return Outcome(stream->Finish());
}

std::string Large(Tidegate::Stub& stub) {
  PredictRequest request;
  request.set_model(kModel);
  request.mutable_trace();
  FillRows(100000, 0, request.add_inputs());
  PredictResponse answer;
  auto context = Context();
  const grpc::Status status = stub.Predict(context.get(), request, &answer);
  if (!status.ok()) return Outcome(status);
  return std::to_string(answer.outputs(0).shape(0)) + (answer.trace().data().size() > 1 << 20 ? " true" : " false");
}

}  // namespace

int main(int, char** argv) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  auto stub = Tidegate::NewStub(grpc::CreateCustomChannel(argv[1], Security(), arguments));
  const std::map<std::string, std::function<std::string()>> cases = {
      {"unary", [&] { return Unary(*stub); }},
      {"deadline", [&] { return Deadline(*stub); }},
      {"cancel", [&] { return Cancel(*stub); }},
      {"steps", [&] { return Take(*stub, 2000); }},
      {"late", [&] { return Take(*stub, 5000, milliseconds(500)); }},
      {"large", [&] { return Large(*stub); }},
      {"drain", [&] { return Drain(*stub); }},
  };
  std::cout << cases.at(argv[2])() << std::endl;
}
