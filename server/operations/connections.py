"""How many connections this process has descriptors for, and the options that bound connections."""

import logging
import resource
import select
from pathlib import Path

from server.edge.certificates import Certificates, Files
from server.edge.http2.limits import Limits
from server.edge.http2.server import Options
from server.edge.transports import GrpcTransport, Http2Transport, Transport
from server.runtime.loop_turn import LoopTurn
from server.settings import Settings

log = logging.getLogger(__name__)

_WANTED = 65_536  # descriptors
_OWN = 192  # descriptors that are kept for the store, files of models, the log and the page of metrics
_SLACK = 2**20  # bytes by which a message may be too large and is still refused in a sentence, not by gRPC
_CALL = 2**16 + 2**14 + 2**12  # bytes that one may take unasked: its window, its header fields, and what it is here
_KEEPALIVE = 30_000  # ms of silence after which a client is asked whether it is there
_PING = 10_000  # ms that it has to answer
_ADDRESSES = 4  # so many may have as many calls and large messages under way as one may
_LONGEST_IDLE = 600_000  # ms without a call, after which a connection is closed; clients connect again by themselves


def raise_descriptors() -> None:
    """Takes as many descriptors as the system allows, up to what is of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """How many connections of clients leave enough descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _WANTED if soft == resource.RLIM_INFINITY else max(soft - _OWN, soft // 2)


def warn_if_full(settings: Settings) -> None:
    try:
        taken = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return  # another system
    most = most_connections()
    of_one = settings.share_of(most)
    if taken >= of_one:
        log.warning(
            "%d descriptors are in use; %d are for connections, %d of them for those of one address: "
            "new ones are refused (see ulimit -n)",
            taken,
            most,
            of_one,
        )


def certificates(settings: Settings) -> Certificates | None:
    """None: without TLS. Raises OSError: what the settings name cannot be used."""
    if not settings.has_tls:
        return None
    client_ca = None if settings.tls_client_ca == "none" else Path(settings.tls_client_ca)
    return Certificates(Files(Path(settings.tls_cert), Path(settings.tls_key), client_ca))


def transport(settings: Settings, shares_port: bool, tls: Certificates | None, turn: LoopTurn) -> Transport:
    """What the settings say that clients connect to. `shares_port`: other processes listen on the same one."""
    if settings.transport == "http2" and hasattr(select, "epoll"):
        return Http2Transport(http2_options(settings), shares_port, tls, turn)
    if settings.transport == "http2":
        log.warning("--transport http2 needs Linux's epoll; this server serves with --transport grpc")
    return GrpcTransport(grpc_options(settings, shares_port), tls)


def http2_options(settings: Settings) -> Options:
    most = settings.max_message_bytes + _SLACK
    connections = most_connections()
    calls = max(settings.most_streams, settings.address_bytes // _CALL)
    return Options(
        limits=Limits(message=most, streams=settings.most_streams),
        connections=connections,
        connections_of_one=settings.share_of(connections),
        calls=_ADDRESSES * calls,
        calls_of_one=calls,
        large_messages=_ADDRESSES * settings.address_bytes,
        large_messages_of_one=settings.address_bytes,
        silent_seconds=settings.silent_seconds,
        idle_seconds=max(settings.silent_seconds, _LONGEST_IDLE / 1_000),
        keepalive_seconds=_KEEPALIVE / 1_000,
        ping_seconds=_PING / 1_000,
    )


def grpc_options(settings: Settings, shares_port: bool) -> list[tuple[str, int]]:
    """Options of gRPC for connections and messages."""
    silent = int(1_000 * settings.silent_seconds)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes + _SLACK),
        ("grpc.max_send_message_length", -1),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none: what is small on the wire would be large in memory
        ("grpc.so_reuseport", int(shares_port)),  # else a second server on the same port is a mistake, not a share
        ("grpc.max_allowed_incoming_connections", most_connections()),
        ("grpc.max_concurrent_streams", settings.most_streams),  # of one connection
        ("grpc.server_handshake_timeout_ms", silent),  # until HTTP/2's preface and settings
        ("grpc.max_connection_idle_ms", max(silent, _LONGEST_IDLE)),
        # Else what is not read yet may be megabytes of each call, not 64 KiB. The price: a message of 64 KiB or
        # more takes a round trip more, and one of 4 MiB 0.5 s instead of 0.1 s on a line of 100 ms there and back.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", _KEEPALIVE),
        ("grpc.keepalive_timeout_ms", _PING),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # a proxy may look after its streams so often
    ]
