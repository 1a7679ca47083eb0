"""The route of a sequence: a load balancer sends streams of one route to one server, where their sequences are.

Each connection has one and sends it in a header of each stream. The ids of its sequences begin with it.
"""

import re
from secrets import token_hex

HEADER = "tidegate-sequence"
_FIT = re.compile("[0-9a-z]{1,32}")


def new_route() -> str:
    return token_hex(4)


def route_of(sequence_id: str) -> str:
    """The route that an id begins with, up to its first `-`; a new one if that is no route."""
    route = sequence_id.partition("-")[0]
    return route if _FIT.fullmatch(route) else new_route()


def headers(route: str) -> tuple[tuple[str, str], ...]:
    return ((HEADER, route),)
