"""A day of real weather, streamed hour by hour; each hour beside what had been said of it. Asks; draws nothing."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers
from tidegate.client import Client
from training.recipes.datafile import WEATHER

DAY = np.datetime64("2014-10-14T00", "h")  # in the test period, which training never sees
HOURS = 24
WARM_UP = 7 * 24  # hours that are sent ahead, so that the state knows the week
AHEAD = (1, 6)


@dataclass(frozen=True)
class Observed:
    """The table that was trained on: each hour's texts by column, when it was, and how warm in degC."""

    rows: list[dict[str, str]]
    times: NDArray[np.datetime64]
    degrees: NDArray[np.float64]


def read() -> Observed:
    """The file, without its column that counts the rows."""
    with gzip.open(WEATHER, "rt") as file:
        rows = [{name: row[name] for name in row if name != "No"} for row in csv.DictReader(file)]
    first = np.datetime64(f"{rows[0]['year']}-01-01T00", "h")  # no hour is left out
    return Observed(rows, first + np.arange(len(rows)), np.array([float(row["TEMP"]) for row in rows]))


@dataclass(frozen=True)
class Forecast:
    """What was said of an hour, `ahead` hours before it, and how warm it was when it was said. In degC."""

    ahead: int
    said: float
    then: float


@dataclass(frozen=True)
class Hour:
    """One hour: the temperature that came, and the forecasts of it."""

    time: np.datetime64
    came: float
    forecasts: tuple[Forecast, ...]


@dataclass(frozen=True)
class Error:
    """Mean absolute errors in degC: of the network, and of saying that nothing will change."""

    ahead: int
    network: float
    no_change: float


def stream_day(client: Client, model: str, observed: Observed) -> Iterator[Hour]:
    """Send the week before as one chunk and then the day step by step; an hour is handed out as it is answered.

    Raises TidegateError.
    """
    first = int(np.flatnonzero(observed.times == DAY)[0])
    (output,) = client.describe(model).outputs
    columns = {ahead: output.features.index(f"TEMP_in_{ahead}") for ahead in AHEAD}
    said: dict[tuple[int, int], float] = {}  # by the row that it is about, and how far ahead it was said

    def note(row: int, answer: Answer | Answers, at: tuple[int, ...] = ()) -> None:
        said.update({(row + ahead, ahead): float(answer.output[*at, column]) for ahead, column in columns.items()})

    with client.sequence(model, trace=False) as sequence:
        week = sequence.chunk(observed.rows[first - WARM_UP : first])
        for index in range(WARM_UP):
            note(first - WARM_UP + index, week, (index,))
        for row in range(first, first + HOURS):
            note(row, sequence.step(observed.rows[row]))
            yield hour(observed, row, said)


def hour(observed: Observed, row: int, said: dict[tuple[int, int], float]) -> Hour:
    """What is known about the hour of one row."""
    degrees = observed.degrees
    forecasts = (Forecast(ahead, said[row, ahead], float(degrees[row - ahead])) for ahead in AHEAD)
    return Hour(observed.times[row], float(degrees[row]), tuple(forecasts))


def errors(hours: Sequence[Hour]) -> list[Error]:
    """For each distance, over the whole day."""
    return [
        Error(
            ahead,
            float(np.mean([abs(hour.forecasts[index].said - hour.came) for hour in hours])),
            float(np.mean([abs(hour.forecasts[index].then - hour.came) for hour in hours])),
        )
        for index, ahead in enumerate(AHEAD)
    ]
