"""How calls come in: by Tidegate's own HTTP/2 or by grpc's. Services do not know which."""

import os
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import grpc

from server.edge.certificates import Certificates, Identity
from server.edge.http2.server import Http2Server, Options
from server.runtime.loop_turn import LoopTurn

UNIX = "unix:"  # a host that begins so is the path of a Unix socket
_OWN = 0o177  # what is taken from the rights of a new file: only this user may connect


def place(host: str, port: int) -> str:
    """Where a listener is, as clients write it: HOST:PORT, with an IPv6 address in brackets, or unix:PATH."""
    if host.startswith(UNIX):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


class Transport(Protocol):
    """One listener, and the services that it serves."""

    def add_generic_rpc_handlers(self, handlers: Iterable[Any], /) -> None:
        """Registers services: grpc.GenericRpcHandler."""

    async def listen(self, host: str, port: int) -> int:
        """Serves from now on, and returns the port; 0 takes a free one. Raises OSError."""

    async def stop(self, grace: float) -> None:
        """Takes nothing further, and lets the calls that are under way end within `grace` seconds."""


class Http2Transport:
    """HTTP/2 of `edge/http2`."""

    def __init__(self, options: Options, shared: bool, certificates: Certificates | None, turn: LoopTurn) -> None:
        self._server = Http2Server(options, turn)
        self._shared = shared
        self._certificates = certificates
        self.add_generic_rpc_handlers = self._server.add_generic_rpc_handlers
        self.stop = self._server.stop

    async def listen(self, host: str, port: int) -> int:
        """See Transport."""
        certificates = self._certificates
        if host.startswith(UNIX):
            with _new_socket(host.removeprefix(UNIX)) as path:
                self._server.bind_path(path)
        else:
            port = self._server.bind(host, port, self._shared)
        await self._server.start(None if certificates is None else lambda: certificates.current.context)
        return port


class GrpcTransport:
    """grpc's own, `grpc.aio`."""

    def __init__(self, options: Sequence[tuple[str, int]], certificates: Certificates | None) -> None:
        self._server = grpc.aio.server(options=options)
        self._certificates = certificates

    def add_generic_rpc_handlers(self, handlers: Iterable[Any], /) -> None:
        """See Transport."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def listen(self, host: str, port: int) -> int:
        """See Transport."""
        if host.startswith(UNIX):
            with _new_socket(host.removeprefix(UNIX)):
                self._add(host)
        else:
            port = self._add(place(host, port))
        await self._server.start()
        return port

    def _add(self, address: str) -> int:
        try:
            if self._certificates is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, _credentials(self._certificates))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    async def stop(self, grace: float) -> None:
        """See Transport."""
        await self._server.stop(grace)


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """For each handshake grpc asks whether there is anything new, in a thread of its own."""
    given = certificates.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if given is certificates.current:
            return None
        given = certificates.current
        return _configuration(given)

    required = given.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(_configuration(given), fetch, required)  # type: ignore[arg-type] # None: nothing new


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.cert)], identity.client_ca)


@contextmanager
def _new_socket(path: str) -> Iterator[str]:
    """Makes a Unix socket for this user alone, in the place of one that no process listens on any more."""
    remove_socket(path)
    before = os.umask(_OWN)
    try:
        yield path
    finally:
        os.umask(before)


def remove_socket(path: str) -> None:
    """Removes a Unix socket that no process listens on. Raises OSError: one does, or it is another kind of file."""
    with suppress(FileNotFoundError):
        check_socket(path)
        Path(path).unlink()


def check_socket(path: str) -> None:
    """Raises OSError: a process listens on this Unix socket, or it is another kind of file, or is not there."""
    if not stat.S_ISSOCK(Path(path).lstat().st_mode):
        raise OSError(f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError):
        probe.connect(path)
        raise OSError(f"another server listens on {path}")
