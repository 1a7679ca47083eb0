"""All rules: the families put theirs into the table when they are read."""

from stepgraph.rules import (  # noqa: F401 # they put their rules into it
    cells,
    classical,
    elementwise,
    gathers,
    loops,
    picks,
    products,
    reductions,
    reshapes,
    sequences,
    shapes,
    windows,
)
from stepgraph.rules.table import RULES, entry_of

__all__ = ["RULES", "entry_of"]
