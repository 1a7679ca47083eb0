"""The caller of a call, from the address that gRPC gives."""

from ipaddress import ip_address, ip_network
from typing import Protocol
from urllib.parse import unquote

from server.caller import Caller

_LONGEST = 128  # of a path to a Unix socket, as it is kept


class Peer(Protocol):
    """The part of gRPC's context that is used here."""

    def peer(self) -> str:
        """ipv4:HOST:PORT, ipv6:[HOST]:PORT or unix:PATH."""


def caller_of(context: Peer) -> Caller:
    return Caller(address_of(context.peer()))


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
