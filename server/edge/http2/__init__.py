"""A gRPC server over HTTP/2 in plain Python: a codec without I/O, and connections on asyncio's transports.

`codec` is the server's side of one connection and `stream` one stream of it; `connection` moves their bytes, `call` is
what a handler of gRPC sees, and `server` listens. Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by the package `hpack`),
and gRPC's "gRPC over HTTP2" (PROTOCOL-HTTP2.md).
"""
