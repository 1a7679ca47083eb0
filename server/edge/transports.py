"""How calls come in: by Tidegate's own HTTP/2 or by grpc's. Services do not know which."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc

from server.edge.http2.server import Http2Server, Options


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

    def __init__(self, options: Options, shared: bool) -> None:
        self._server = Http2Server(options)
        self._shared = shared
        self.add_generic_rpc_handlers = self._server.add_generic_rpc_handlers
        self.stop = self._server.stop

    async def listen(self, host: str, port: int) -> int:
        """See Transport."""
        port = self._server.bind(host, port, self._shared)
        await self._server.start()
        return port


class GrpcTransport:
    """grpc's own, `grpc.aio`."""

    def __init__(self, options: Sequence[tuple[str, int]]) -> None:
        self._server = grpc.aio.server(options=options)

    def add_generic_rpc_handlers(self, handlers: Iterable[Any], /) -> None:
        """See Transport."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def listen(self, host: str, port: int) -> int:
        """See Transport."""
        address = f"{host}:{port}"
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await self._server.start()
        return port

    async def stop(self, grace: float) -> None:
        """See Transport."""
        await self._server.stop(grace)
