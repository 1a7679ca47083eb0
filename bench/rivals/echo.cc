// An empty gRPC server in C++: what `echo.py` is in Python. It listens on the port that is given.
//
// The first message of a stream brings the answer, ready in bytes; every message after it gets those bytes back, unread.
// It is driven by callbacks, which costs less than a thread for each stream.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <string>
#include <vector>

#include "tidegate/v1/sequence.pb.h"

namespace {

class Echo : public grpc::ServerGenericBidiReactor {
 public:
  Echo() { StartRead(&message_); }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    if (!answer_.Valid()) answer_ = Canned();
    StartWrite(&answer_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    StartRead(&message_);
  }

  void OnDone() override { delete this; }

 private:
  // Takes out of a stream's first message what is to be answered.
  grpc::ByteBuffer Canned() const {
    std::vector<grpc::Slice> slices;
    message_.Dump(&slices);
    std::string bytes;
    for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    tidegate::v1::StreamRequest request;
    request.ParseFromString(bytes);
    const grpc::Slice answer(request.steps().inputs(0).data());
    return grpc::ByteBuffer(&answer, 1);
  }

  grpc::ByteBuffer message_, answer_;
};

class Service : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override { return new Echo; }
};

}  // namespace

int main(int, char** argv) {
  Service service;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(&service);
  builder.BuildAndStart()->Wait();
}
