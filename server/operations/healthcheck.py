"""`python -m server.operations.healthcheck`: asks the server on this machine, by its settings, whether it serves.

Exit status 0 if it does, 1 with a sentence if not. Knows grpc.health.v1 only.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.options import read

TIMEOUT = 3.0  # seconds; less than a container engine waits for this command


def main() -> int:
    settings = read(sys.argv[1:])
    address = f"{settings.host}:{settings.port}"  # 0.0.0.0, as a destination, is this machine
    try:
        status = ask(address)
    except grpc.RpcError as error:
        print(f"{address} does not answer: {error.code().name}", file=sys.stderr)
        return 1
    if status != health_pb2.HealthCheckResponse.SERVING:
        print(f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}", file=sys.stderr)
        return 1
    return 0


def ask(address: str) -> int:
    """The server's overall status. Raises grpc.RpcError if nobody answers in time."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    return int(reply.status)


if __name__ == "__main__":
    sys.exit(main())
