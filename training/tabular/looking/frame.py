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
    """The columns of a frame; an index of pandas that has a name, or holds times, is some too.

    Raises:
        DataError: it is no frame, or its columns have no names that tell them apart.
    """
    try:
        known = nw.from_native(frame, eager_only=True)
        index = nw.maybe_get_index(known)
        if index is not None and (any(index.names) or type(index).__name__ == "DatetimeIndex"):
            known = nw.from_native(frame.reset_index(), eager_only=True)
        names = list(known.columns)
    except TypeError:
        raise DataError(f"a {type(frame).__name__} is no table; give a frame of pandas, polars or Arrow") from None
    except ValueError as error:  # two columns, or an index and a column, of one name
        raise DataError(f"the frame cannot be used: {' '.join(str(error).split())}; rename one of them") from None
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"the columns of the frame are called {names!r:.60}; give a frame whose columns have texts as names"
        )
    return from_arrays({name: array_of(known[name]) for name in names}, "the frame")


def array_of(column: nw.Series[Any]) -> NDArray[Any]:
    """A column as numpy has it: numbers with NaN, times with NaT, texts with None; times with a zone as texts."""
    missing = column.is_null().to_list()
    values = [None if gone else value for gone, value in zip(missing, column.to_list(), strict=True)]
    if column.dtype.is_numeric() or column.dtype == nw.Boolean:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if column.dtype in (nw.Datetime, nw.Date) and getattr(column.dtype, "time_zone", None) is None:
        return np.array(values, dtype="datetime64[us]")
    return np.array([None if value is None else str(value) for value in values], dtype=object)
