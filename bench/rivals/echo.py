"""An empty gRPC server: what two Python processes can carry when nothing is computed between them.

The first message of a stream brings the answer, ready in bytes; every message after it gets those bytes back, unread.
"""

import argparse
from typing import Any

import grpc
import uvloop

from tidegate.v1 import sequence_pb2

METHOD = "Stream"
SERVICE = "tidegate.v1.Tidegate"


def first_message(answer: bytes) -> sequence_pb2.StreamRequest:
    """Tell the echo what to answer on this stream."""
    request = sequence_pb2.StreamRequest()
    request.steps.inputs.add(data=answer)
    return request


async def echo(_: object, context: "grpc.aio.ServicerContext[object, bytes]") -> None:
    """Read a message, write the answer, and so on."""
    message = await context.read()
    answer = canned(message) if isinstance(message, bytes) else b""
    while isinstance(message, bytes):  # the end of the stream is something else
        await context.write(answer)
        message = await context.read()


def canned(message: bytes) -> bytes:
    """Take out of a stream's first message what is to be answered."""
    return sequence_pb2.StreamRequest.FromString(message).steps.inputs[0].data


async def serve(port: int) -> None:
    """Serve on the loopback until the process is ended."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.echo", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
