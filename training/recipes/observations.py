"""The weather of Beijing, hour by hour, as rows that a client could send. Needs neither torch nor a network.

Legend: N hours, F features.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = Path(__file__).parents[1] / "data" / "beijing_hourly.csv.gz"
MISSING = "NA"
# Columns that hold numbers, and their units. `pm2.5` is a concentration, `Iws` the wind speed summed up since the
# direction last changed, `Is` and `Ir` the hours that it has been snowing or raining.
NUMBERS = {
    "month": "",
    "hour": "h",
    "pm2.5": "ug/m3",
    "DEWP": "degC",
    "TEMP": "degC",
    "PRES": "hPa",
    "Iws": "m/s",
    "Is": "h",
    "Ir": "h",
}
# `cbwd`, the combined wind direction, becomes four features of which one is 1; cv is calm and variable.
DIRECTIONS = ("NE", "NW", "SE", "cv")
FEATURES = (*NUMBERS, *(f"wind_{direction}" for direction in DIRECTIONS))
UNITS = (*NUMBERS.values(), *("" for _ in DIRECTIONS))
TEMPERATURE = FEATURES.index("TEMP")


@dataclass(frozen=True)
class Observations:
    """Every hour from the first one at which every column has been measured."""

    time_N: NDArray[np.datetime64]
    x_NF: NDArray[np.float32]
    dropped: int
    filled: dict[str, int]
    sha256: str

    @property
    def temperature_N(self) -> NDArray[np.float32]:
        """In degC."""
        return self.x_NF[:, TEMPERATURE]


def load(path: Path = FILE) -> Observations:
    """Read the file. What is missing is the value last measured: nothing is ever filled from the future.

    Raises:
        DataError: the file is missing, or not what it should be.
    """
    try:
        content = path.read_bytes()
        rows = list(csv.DictReader(io.StringIO(gzip.decompress(content).decode("ascii"))))
        raw_NF = np.array([features(row) for row in rows], dtype=np.float32)
        time_N = np.array([hour(row) for row in rows], dtype="datetime64[h]")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}") from error
    require_every_hour(time_N, path)
    start = first_complete(raw_NF, path)
    missing_F = np.isnan(raw_NF[start:]).sum(axis=0)
    filled = {name: int(count) for name, count in zip(FEATURES, missing_F, strict=True) if count}
    digest = hashlib.sha256(content).hexdigest()
    return Observations(time_N[start:], last_known(raw_NF)[start:], start, filled, digest)


def features(row: dict[str, str]) -> list[float]:
    """One line of the file as numbers; NaN where nothing was measured."""
    if row["cbwd"] not in DIRECTIONS:
        raise ValueError(f"unknown wind direction {row['cbwd']!r}")
    numbers = [float("nan") if row[name] == MISSING else float(row[name]) for name in NUMBERS]
    return numbers + [float(row["cbwd"] == direction) for direction in DIRECTIONS]


def hour(row: dict[str, str]) -> str:
    """Its time, as ISO 8601 writes it."""
    return f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}T{int(row['hour']):02}"


def require_every_hour(time_N: NDArray[np.datetime64], path: Path) -> None:
    """A recurrence counts time in rows, so a gap would shorten it unseen."""
    gaps = np.flatnonzero(np.diff(time_N) != np.timedelta64(1, "h"))
    if len(time_N) == 0 or len(gaps):
        raise DataError(f"{path}: after {time_N[gaps[0]]} the hours do not go on" if len(gaps) else f"{path} is empty")


def first_complete(raw_NF: NDArray[np.float32], path: Path) -> int:
    """The first row from which every column has been measured at least once."""
    known_NF = np.logical_or.accumulate(~np.isnan(raw_NF), axis=0)
    complete_N = known_NF.all(axis=1)
    if not complete_N.any():
        raise DataError(f"{path}: a column was never measured")
    return int(complete_N.argmax())


def last_known(raw_NF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each NaN replaced by the last number above it in its column; those before the first number stay."""
    row_N1 = np.arange(len(raw_NF))[:, None]
    last_NF = np.maximum.accumulate(np.where(np.isnan(raw_NF), 0, row_N1), axis=0)
    return np.take_along_axis(raw_NF, last_NF, axis=0)
