"""How a fleet's members and their steps are counted: as arrays here, as bytes on the wire. Knows no fleet."""

import numpy as np
from numpy.typing import NDArray

Members = NDArray[np.int64]
Steps = NDArray[np.uint64]

HANDLE = np.dtype("<u4")
STEP = np.dtype("<u8")


def handles_of(members: Members, first: int) -> bytes:
    """The client's handles of these members [N], where that of member 0 is `first`."""
    return (members + first).astype(HANDLE).tobytes()
