"""The caller of a call, from what its context shows: address, `authorization`, and the certificate's common name."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Protocol
from urllib.parse import unquote

from server.access.authority import Authority, Credentials
from server.caller import Caller

_LONGEST = 128  # of a path to a Unix socket, as it is kept
_SCHEME = "bearer "
_COMMON_NAME = "x509_common_name"  # gRPC's word for it


class Peer(Protocol):
    """The part of gRPC's context that is used here."""

    def peer(self) -> str:
        """ipv4:HOST:PORT, ipv6:[HOST]:PORT or unix:PATH."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """The header fields."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS has verified of the client; empty without a certificate."""


def caller_of(context: Peer, authority: Authority) -> Caller:
    """Raises Unauthenticated."""
    return authority.caller(_shown(context))


def anybody(context: Peer) -> Caller:
    """The caller of a call that needs no rights: known by its address alone."""
    return Caller(address_of(context.peer()), rights=frozenset())


def trace_of(context: Peer) -> str:
    """The `traceparent` that a call came with (W3C Trace Context); empty: none."""
    return str(dict(context.invocation_metadata() or ()).get("traceparent", ""))


def _shown(context: Peer) -> Credentials:
    peer, secret = context.peer(), ""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value[: len(_SCHEME)].lower() == _SCHEME:
            secret = value[len(_SCHEME) :].strip()
    subject = next(iter(context.auth_context().get(_COMMON_NAME, ())), b"").decode(errors="replace")
    return Credentials(address_of(peer), is_here(peer), secret, subject)


def is_here(peer: str) -> bool:
    """Whether a client is on this machine: a loopback address or a Unix socket."""
    family, _, rest = peer.partition(":")
    if family == "unix":
        return True
    if family not in ("ipv4", "ipv6"):
        return False
    address = ip_address(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def address_of(peer: str) -> str:
    """What a client is counted by, from the name that gRPC gives it.

    Of IPv6 the first 64 bits, because a client has all addresses that begin with them.
    """
    family, _, rest = peer.partition(":")
    if family == "ipv4":
        return peer.rpartition(":")[0]
    if family != "ipv6":
        return peer[:_LONGEST]
    address = ip_address(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0])
    if mapped := getattr(address, "ipv4_mapped", None):
        return f"ipv4:{mapped}"
    return f"ipv6:{ip_network((address, 64), strict=False).network_address}"


def peer_of(name: object) -> str:
    """A client as grpc names it, from the address that its socket has at the other end."""
    if not isinstance(name, tuple):
        return "unix:"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
