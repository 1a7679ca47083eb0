"""Columns that know the target: copies of it, and columns from its future.

Such a column makes a test look good and is not there when the model is used. Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.tabular.looking.grid import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.looking.grid import Grid
    from training.tabular.looking.reading import Rows
    from training.tabular.looking.roles import Roles

# What a straight line leaves unexplained, of the variance: below COPY it is the same number, in a unit of its own. A
# column that leaves less than a tenth of what the target's own value leaves is looked at with suspicion.
COPY, SUSPICIOUS = 1e-6, 0.1
FEWEST = 20
LAGS = 48


@dataclass(frozen=True)
class Leak:
    """A column and what it knows. `certain`: it is left out; otherwise it is only told of."""

    column: str
    says: str
    certain: bool


def leaks(rows: Rows, roles: Roles, grid: Grid, horizons: tuple[int, ...]) -> list[Leak]:
    """Every input column that holds the target, at this row or at a later one."""
    if roles.goal == "classify":
        return [
            leak for name in (*roles.numbers, *roles.categories) for leak in same_as_label(rows, name, roles.targets[0])
        ]
    ahead = sorted({*range(1, min(max(horizons), LAGS) + 1), *horizons})
    found: list[Leak] = []
    for target in roles.targets:
        y_N = rows.columns[target].values[grid.row_N]
        later = {steps: shifted(y_N, grid.ahead(steps)) for steps in ahead}
        own = {steps: unexplained(y_N, future_N) for steps, future_N in later.items()}
        for name in (name for name in roles.numbers if name not in roles.targets):
            x_N = rows.columns[name].values[grid.row_N]
            found += of_column(name, target, x_N, y_N, later, own)
            if name in roles.known:
                found += said_to_be_known(name, target, unexplained(x_N, y_N), min(own.values()))
    return found


def said_to_be_known(name: str, target: str, left: float, own: float) -> list[Leak]:
    """A column that is asked to be known ahead, and is nearly the target."""
    if not COPY <= left < SUSPICIOUS * own:
        return []
    return [Leak(name, f"is to be known ahead, and says {1 - left:.1%} of {target} in the same row", certain=False)]


def of_column(
    name: str,
    target: str,
    x_N: NDArray[np.float64],
    y_N: NDArray[np.float64],
    later: dict[int, NDArray[np.float64]],
    own: dict[int, float],
) -> list[Leak]:
    """What one column knows of one target: its future first, since that does more harm than a copy."""
    left = {steps: unexplained(x_N, future_N) for steps, future_N in later.items()}
    steps = min(left, key=lambda steps: left[steps] / max(own[steps], 1e-12))
    then = f"{target} {counted(steps, 'step')} later"
    if left[steps] < COPY and left[steps] < SUSPICIOUS * own[steps]:
        return [Leak(name, f"is {then}", certain=True)]
    if unexplained(x_N, y_N) < COPY:
        return [Leak(name, f"is a copy of {target}, perhaps in another unit", certain=True)]
    if left[steps] < SUSPICIOUS * own[steps]:
        says = f"says {1 - left[steps]:.1%} of {then}; {target} itself says {1 - own[steps]:.1%}"
        return [Leak(name, says, certain=False)]
    return []


def same_as_label(rows: Rows, name: str, target: str) -> list[Leak]:
    """A column each of whose values goes with one label only, in many rows each."""
    column, label = rows.columns[name], rows.columns[target]
    both_N = ~column.missing_N & ~label.missing_N
    if both_N.sum() < FEWEST:
        return []
    x_N = np.unique(column.values[both_N].astype(str), return_inverse=True)[1]
    y_N = np.unique(label.values[both_N].astype(str), return_inverse=True)[1]
    values, pairs = len(np.unique(x_N)), len(np.unique(x_N * (y_N.max() + 1) + y_N))
    if pairs == values and values <= max(2 * (int(y_N.max()) + 1), 3):
        return [Leak(name, f"has one value for each {target}", certain=True)]
    return []


def shifted(values_N: NDArray[np.float64], place_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """The values at other rows, NaN where there is no such row."""
    return np.where(place_N >= 0, values_N[place_N], np.nan)


def unexplained(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> float:
    """The share of y's variance that a straight line of x leaves: 1 - r^2; 1 where too little is known."""
    both_N = ~np.isnan(x_N) & ~np.isnan(y_N)
    if both_N.sum() < FEWEST:
        return 1.0
    x, y = x_N[both_N] - x_N[both_N].mean(), y_N[both_N] - y_N[both_N].mean()
    spread = float((x * x).sum() * (y * y).sum())
    return max(0.0, 1.0 - float((x * y).sum()) ** 2 / spread) if spread > 0 else 1.0
