"""`python -m server.operations.healthcheck`: asks the server on this machine, by its settings, whether it serves.

Exit status 0 if it does, 1 with a sentence if not. Knows grpc.health.v1 only. With TLS, it trusts the server's own
certificate. Where clients must show one, it shows that of TIDEGATE_CERT and TIDEGATE_KEY, else the server's own.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.edge.transports import place
from server.operations.connections import certificates
from server.options import read
from server.settings import Settings

TIMEOUT = 3.0  # seconds; less than a container engine waits for this command


def main() -> int:
    settings = read(sys.argv[1:])
    # 0.0.0.0, as a destination, is this machine
    address = place(settings.host, settings.port)
    try:
        status = ask(channel(address, settings))
    except grpc.RpcError as error:
        print(f"{address} does not answer: {error.code().name}", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    if status != health_pb2.HealthCheckResponse.SERVING:
        print(f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}", file=sys.stderr)
        return 1
    return 0


def channel(address: str, settings: Settings, environment: Mapping[str, str] = os.environ) -> grpc.Channel:
    """To the server that has these settings. Raises OSError: its certificate cannot be used."""
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if (tls := certificates(settings)) is None:
        return grpc.insecure_channel(address, options)
    identity = tls.current
    names = (name.replace("*", "any", 1) for name in identity.names)
    options += [("grpc.ssl_target_name_override", name) for name in (*names, "localhost")][:1]
    key, cert = identity.key, identity.cert
    if "TIDEGATE_CERT" in environment and "TIDEGATE_KEY" in environment:
        key, cert = (Path(environment[f"TIDEGATE_{name}"]).read_bytes() for name in ("KEY", "CERT"))
    shown = (None, None) if identity.client_ca is None else (key, cert)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(identity.cert, *shown), options)


def ask(channel: grpc.Channel) -> int:
    """The server's overall status. Raises grpc.RpcError if no server answers in time."""
    with channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    return int(reply.status)


if __name__ == "__main__":
    sys.exit(main())
