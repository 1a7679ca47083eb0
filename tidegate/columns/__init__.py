"""What the numbers of a row are: names, units, categories, bounds, calendars. Pure; numpy alone.

A column is one number of a row: an element of the last axis, or of all of it. Shared by server, client and training.
"""

from tidegate.columns.column import NOTHING, Column, Legend, count, plain_names
from tidegate.columns.column_metadata import INPUT_KEYS, OUTPUT_KEYS, LegendError, read_legend
from tidegate.columns.limits import Limits
from tidegate.columns.rows import Input, RowError, Rows

__all__ = [
    "INPUT_KEYS", "NOTHING", "OUTPUT_KEYS", "Column", "Input", "Legend", "LegendError", "Limits", "RowError", "Rows",
    "count", "plain_names", "read_legend",
]  # fmt: skip
