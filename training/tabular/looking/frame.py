"""A frame of pandas, polars, Arrow or any other library that narwhals knows, as columns; none of them is required."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from training.errors import DataError
from training.tabular.looking.reading import Rows, from_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rows_of(frame: Any) -> Rows:  # noqa: ANN401 - of any library
    """The columns of a frame.

    Raises:
        DataError: it is no frame.
    """
    try:
        known = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise DataError(f"a {type(frame).__name__} is no table; give a frame of pandas, polars or Arrow") from None
    return from_arrays({name: array_of(known[name]) for name in known.columns}, "the frame")


def array_of(column: nw.Series[Any]) -> NDArray[Any]:
    """A column as numpy has it: numbers with NaN, times with NaT, texts with None; times with a zone as texts."""
    if column.dtype.is_numeric() or column.dtype == nw.Boolean:
        return np.array([np.nan if value is None else value for value in column.to_list()], dtype=np.float64)
    values = [None if value is None or value != value else value for value in column.to_list()]
    if column.dtype in (nw.Datetime, nw.Date) and getattr(column.dtype, "time_zone", None) is None:
        return np.array(values, dtype="datetime64[us]")
    return np.array([None if value is None else str(value) for value in values], dtype=object)
