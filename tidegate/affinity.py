"""The header by which a balancer in front of several servers keeps a client at one of them while that one serves."""

from secrets import token_hex

HEADER = "tidegate-sequence"


def affinity() -> tuple[tuple[str, str], ...]:
    """The same for all streams of a connection, so that it comes back to where its sequences are; random."""
    return ((HEADER, token_hex(8)),)
