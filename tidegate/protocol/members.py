"""How a fleet's members and their steps are counted: as arrays here, as bytes on the wire. Knows no fleet."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import refused

Members = NDArray[np.int64]
Steps = NDArray[np.uint64]

HANDLE = np.dtype("<u4")
STEP = np.dtype("<u8")


def handles_of(members: Members, first: int) -> bytes:
    """The client's handles of these members [N], where that of member 0 is `first`."""
    return (members + first).astype(HANDLE).tobytes()


def choose(members: Sequence[int] | NDArray[np.integer], count: int) -> Members:
    """The members that a caller names, of a fleet of `count`. Raises BadInput, Refused (UNKNOWN_HANDLE)."""
    named = np.asarray(members)
    if named.ndim != 1 or not len(named):
        raise refused("MALFORMED", "a fleet's step needs a list of at least one member")
    if named.dtype.kind not in "iu":
        raise refused("MALFORMED", f"members are named by whole numbers, and {named.dtype} came")
    chosen = named.astype(np.int64)
    if chosen.min() < 0 or chosen.max() >= count:
        raise refused("UNKNOWN_HANDLE", f"this fleet has the members 0 to {count - 1}")
    if np.bincount(chosen).max() > 1:
        raise refused("MALFORMED", "a member of a fleet can take only one step in one message")
    return chosen
