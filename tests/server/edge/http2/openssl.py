"""A TLS client over OpenSSL itself, which can ask for what Python's `ssl` does not: new keys, and a new handshake."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_MUCH = 2**16
TLS_1_2 = 0x0303
_SET_MAX_VERSION = 124  # SSL_CTRL_SET_MAX_PROTO_VERSION

here = bool(find_library("ssl") and find_library("crypto"))


def _library(name: str, *pointers: str) -> ctypes.CDLL:
    library = ctypes.CDLL(find_library(name))
    for function in pointers:
        getattr(library, function).restype = ctypes.c_void_p
    return library


class OpenSsl:
    """One connection; it trusts every certificate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int = 0) -> None:
        self._reader, self._writer = reader, writer
        self._ssl = _library("ssl", "TLS_client_method", "SSL_CTX_new", "SSL_new")
        self._crypto = _library("crypto", "BIO_new", "BIO_s_mem")
        context = ctypes.c_void_p(self._ssl.SSL_CTX_new(ctypes.c_void_p(self._ssl.TLS_client_method())))
        self._ssl.SSL_CTX_ctrl(context, _SET_MAX_VERSION, most, None)
        self._tls = ctypes.c_void_p(self._ssl.SSL_new(context))
        self._ssl.SSL_CTX_free(context)
        memory = ctypes.c_void_p(self._crypto.BIO_s_mem())
        self._incoming, self._outgoing = (ctypes.c_void_p(self._crypto.BIO_new(memory)) for _ in range(2))
        self._ssl.SSL_set_bio(self._tls, self._incoming, self._outgoing)
        self._ssl.SSL_set_alpn_protos(self._tls, b"\x02h2", 3)
        self._ssl.SSL_set_connect_state(self._tls)

    async def shake_hands(self) -> None:
        while self._ssl.SSL_do_handshake(self._tls) != 1:
            self._writer.write(self._made())
            data = await self._reader.read(_MUCH)
            assert data, "the server has ended the connection"
            self._take(data)
        self._writer.write(self._made())

    def renewals(self, count: int) -> bytes:
        """So many records that renew the client's keys, and ask the server to renew its own."""
        made = b""
        for _ in range(count):
            self._ssl.SSL_key_update(self._tls, 1)
            self._ssl.SSL_do_handshake(self._tls)
            made += self._made()
        return made

    def another_handshake(self) -> bytes:
        """The beginning of one on the same connection, as TLS 1.2 had it."""
        assert self._ssl.SSL_renegotiate(self._tls) == 1
        self._ssl.SSL_do_handshake(self._tls)
        return self._made()

    def encrypted(self, data: bytes) -> bytes:
        assert self._ssl.SSL_write(self._tls, data, len(data)) == len(data)
        return self._made()

    async def read(self) -> bytes:
        """What the server says next; empty: it has ended the connection."""
        buffer = ctypes.create_string_buffer(_MUCH)
        while (count := self._ssl.SSL_read(self._tls, buffer, _MUCH)) <= 0:
            data = await self._reader.read(_MUCH)
            if not data:
                return b""
            self._take(data)
        return buffer.raw[:count]

    def _take(self, data: bytes) -> None:
        self._crypto.BIO_write(self._incoming, data, len(data))

    def _made(self) -> bytes:
        buffer = ctypes.create_string_buffer(_MUCH)
        count = self._crypto.BIO_read(self._outgoing, buffer, _MUCH)
        return buffer.raw[: max(0, count)]
