"""The route of a sequence: by it a balancer in front of several servers leads a client to where the sequence is.

A connection has one, and says it in a header of each of its streams. The ids of what is opened there begin with it.
"""

import re
from secrets import token_hex

HEADER = "tidegate-sequence"
_FIT = re.compile("[0-9a-z]{1,32}")


def new_route() -> str:
    return token_hex(4)


def route_of(sequence_id: str) -> str:
    """What stands before the first `-` of an id; a new one if that can be no route."""
    route = sequence_id.partition("-")[0]
    return route if _FIT.fullmatch(route) else new_route()


def headers(route: str) -> tuple[tuple[str, str], ...]:
    return ((HEADER, route),)
