"""How the day of weather looks: one line an hour, with a strip to the right. Pure: values in, lines out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from demo.weather import AHEAD, Error, Forecast, Hour
from tidegate.drawing.glyphs import Style

_LEFT = 44  # characters before the strip
_CAME, _SAID = 215, 75  # colours
_MARGIN = 2.0  # degC beyond the day's temperatures that the strip shows


class DayPage:
    """Lines for the hours of a day whose temperatures lie from `low` to `high`."""

    def __init__(self, low: float, high: float, width: int, style: Style) -> None:
        self._low, self._high = math.floor(low - _MARGIN), math.ceil(high + _MARGIN)
        self._strip = max(10, width - _LEFT)
        self._style = style

    def header(self) -> list[str]:
        """What each column is."""
        said = "".join(f"{f'{ahead} h before':>14}" for ahead in AHEAD)
        low, high = f"{self._low}", f"{self._high} degC"
        scale = low + " " * (self._strip - len(low) - len(high)) + high
        return [self._style.bold(f"{'hour':>7}{'came':>7}{said:<30}{scale}".rstrip())]

    def line(self, hour: Hour) -> str:
        """One hour: when, what came, what had been said of it and how wrong that was, and all of it on a strip."""
        when = f"{str(hour.time)[11:13]}:00"
        said = "".join(self._said(forecast, hour.came) for forecast in hour.forecasts)
        return f"{when:>7}{hour.came:>7.1f}{said:<30}{self._marks(hour)}".rstrip()

    def legend(self) -> str:
        """The strip's marks."""
        said = "   ".join(f"{ahead} said {ahead} h before" for ahead in AHEAD)
        return self._style.dim(f"{f'{self._mark} came   {said}':>{_LEFT + self._strip}}")

    def _said(self, forecast: Forecast, came: float) -> str:
        return f"{forecast.said:>8.1f} {forecast.said - came:>+5.1f}"

    def _marks(self, hour: Hour) -> str:
        """The later its writing, the more important: what came hides what was said."""
        strip = [self._style.dim("·" if self._style.unicode else ".")] * self._strip
        for forecast in reversed(hour.forecasts):
            strip[self._column(forecast.said)] = self._style.paint(str(forecast.ahead), _SAID)
        strip[self._column(hour.came)] = self._style.paint(self._mark, _CAME)
        return "".join(strip)

    @property
    def _mark(self) -> str:
        return "●" if self._style.unicode else "*"

    def _column(self, temperature: float) -> int:
        share = (temperature - self._low) / (self._high - self._low)
        return int(np.clip(round(share * (self._strip - 1)), 0, self._strip - 1))


def summary(errors: Sequence[Error], test: Mapping[int, Mapping[str, float]], style: Style) -> list[str]:
    """The errors of this day, and by hours ahead those that the pipeline reports of the whole test period."""
    rows = [style.bold(f"  {'mean error in degC':<26}" + "".join(f"{f'{e.ahead} h ahead':>12}" for e in errors))]
    period = [test[error.ahead] for error in errors]
    for label, values in (
        ("this day: the network", [error.network for error in errors]),
        ("this day: 'no change'", [error.no_change for error in errors]),
        ("nine months: the network", [values["model"] for values in period]),
        ("nine months: 'no change'", [values["persistence"] for values in period]),
    ):
        rows.append(f"  {label:<26}" + "".join(f"{value:>12.2f}" for value in values))
    return rows
