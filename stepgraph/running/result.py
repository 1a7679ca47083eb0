"""What some steps give, as a value. Needs numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True, eq=False)
class Result:
    """K steps of B sequences: `outputs[name]` [K, B, ...row], `trace` [K, B, V] or None, `state` after them [B, W]."""

    outputs: Mapping[str, np.ndarray]
    trace: np.ndarray | None
    state: np.ndarray
