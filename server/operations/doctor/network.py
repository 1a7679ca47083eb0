"""Ports, certificates and tokens. That a server with these settings holds a port already is as it should be."""

import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import grpc
from grpc_health.v1 import health_pb2

from server.access.token_file import TokenFile
from server.edge.transports import UNIX, check_socket, place
from server.operations import connections, healthcheck
from server.operations.doctor.finding import FAULT, OK, WARNING, Finding
from server.operations.workers import reserved
from server.settings import Settings

_SOON = 14 * 86_400  # seconds until a certificate expires
_PATIENCE = 5.0  # seconds until a page of metrics has come


def ports(settings: Settings) -> Iterator[Finding]:
    where, on_file = place(settings.host, settings.port), settings.host.startswith(UNIX)
    if on_file and not (folder := Path(settings.host.removeprefix(UNIX)).parent).is_dir():
        yield Finding(FAULT, "port", f"there is no folder {folder}", "make it")
        return
    error = _error(settings.host, settings.port) if settings.port or on_file else None
    yield Finding(OK, "port", f"{where} is free") if error is None else _taken(where, error, settings)
    host = settings.metrics_host or settings.host
    for number in range(settings.workers if settings.metrics_port else 0):
        port = settings.metrics_port + number
        if (error := _error(host, port)) is None:
            yield Finding(OK, "port", f"{place(host, port)} is free, for metrics")
        elif _has_metrics(host, port):
            yield Finding(OK, "port", f"a server's metrics are on {place(host, port)} already")
        else:
            mend = "if that is not this server: another port with --metrics-port"
            yield Finding(WARNING, "port", f"metrics: {error}", mend)


def _error(host: str, port: int) -> str | None:
    """Why it cannot be listened there."""
    try:
        if host.startswith(UNIX):
            with suppress(FileNotFoundError):
                check_socket(host.removeprefix(UNIX))
            return None
        with reserved(host, port):
            return None
    except OSError as error:
        return str(error)


def _has_metrics(host: str, port: int) -> bool:
    """Whether a server like this one shows its metrics there."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://{place(host, port)}/metrics", timeout=_PATIENCE) as page:
            return b"\ntidegate_" in page.read()
    except (OSError, HTTPException):
        return False


def _taken(where: str, error: str, settings: Settings) -> Finding:
    serving = health_pb2.HealthCheckResponse.SERVING
    try:
        status = healthcheck.ask(healthcheck.channel(where, settings))
    except (grpc.RpcError, OSError):
        mend = "stop that program, or give another --port or --host; if it is this server: its --tls-cert and so on"
        return Finding(FAULT, "port", error, mend)
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    level = OK if status == serving else WARNING
    return Finding(
        level, "port", f"a server is on {where} already, and is {name}", "" if level is OK else "see its log"
    )


def tokens(settings: Settings) -> Iterator[Finding]:
    if settings.tokens == "none":
        return
    try:
        found = TokenFile(Path(settings.tokens)).read()
    except OSError as error:
        yield Finding(FAULT, "tokens", str(error), "python -m server token list, or token add")
        return
    over = sorted(name for name, token in found.items() if token.expires < time.time())
    yield Finding(OK, "tokens", f"{settings.tokens} has {len(found)}, {len(over)} of them expired")
    if len(over) == len(found):
        yield Finding(
            WARNING, "tokens", "no token is valid: all clients are refused", "python -m server token add NAME"
        )


def certificates(settings: Settings) -> Iterator[Finding]:
    if not settings.has_tls:
        return
    try:
        found = connections.certificates(settings)
    except OSError as error:
        yield Finding(FAULT, "certificate", str(error), "give a certificate and its own key, both in PEM form")
        return
    assert found is not None, "there is TLS"
    identity, left = found.current, found.current.expires - time.time()
    if left < 0:
        yield Finding(FAULT, "certificate", f"{identity}: it has expired", "replace the files; no restart is needed")
    elif left < _SOON:
        mend = "replace the files soon; no restart is needed"
        yield Finding(WARNING, "certificate", f"{identity}: {left / 86_400:.0f} days are left", mend)
    else:
        yield Finding(OK, "certificate", f"{identity}; its key matches")
