"""All rules: the families put theirs into the table when they are read."""

from stepgraph.rules import (
    cells,
    elementwise,
    gathers,
    images,
    loops,
    picks,
    products,
    reductions,
    reshapes,
    sequences,
    shapes,
    windows,
)
from stepgraph.rules.table import RULES

FAMILIES = (
    cells,
    elementwise,
    gathers,
    images,
    loops,
    picks,
    products,
    reductions,
    reshapes,
    sequences,
    shapes,
    windows,
)

__all__ = ["FAMILIES", "RULES"]
