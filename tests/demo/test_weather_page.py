"""The day of weather: which hours are compared, and how a line looks."""

import numpy as np

from demo import weather_page
from demo.weather import DAY, WARM_UP, Error, Forecast, Hour, errors, read
from tidegate.drawing.glyphs import Style
from training.recipes.weather import weather
from training.tabular.learning import splits

HOUR = Hour(np.datetime64("2014-10-14T09", "h"), 11.0, (Forecast(1, 10.5, 8.0), Forecast(6, 13.0, 3.0)))


def test_a_line_holds_what_came_and_each_forecast_with_its_error() -> None:
    line = weather_page.DayPage(3, 22, 80, Style()).line(HOUR)
    assert line.split()[:6] == ["09:00", "11.0", "10.5", "-0.5", "13.0", "+2.0"]
    assert line.count("●") == 1
    assert len(line) == 80


def test_a_forecast_beyond_the_strip_stands_at_its_edge() -> None:
    far = Hour(HOUR.time, 11.0, (Forecast(1, -90.0, 8.0), Forecast(6, 90.0, 3.0)))
    strip = weather_page.DayPage(3, 22, 80, Style()).line(far)[44:]
    assert strip[0] == "1"
    assert strip[-1] == "6"


def test_header_and_legend_fit_beside_the_lines() -> None:
    page = weather_page.DayPage(3, 22, 80, Style(unicode=False))
    lines = [*page.header(), page.legend(), page.line(HOUR)]
    assert max(map(len, lines)) <= 80
    assert "".join(lines).isascii()


def test_errors_are_means_over_the_hours() -> None:
    later = Hour(HOUR.time + 1, 14.0, (Forecast(1, 12.5, 11.0), Forecast(6, 14.0, 4.0)))
    assert errors([HOUR, later]) == [Error(1, 1.0, 3.0), Error(6, 1.0, 9.0)]


def test_the_summary_sets_the_day_beside_the_test_period() -> None:
    test = {1: {"model": 0.77, "persistence": 1.01}, 6: {"model": 1.61, "persistence": 4.4}}
    lines = weather_page.summary([Error(1, 0.92, 1.5), Error(6, 1.88, 6.5)], test, Style())
    assert [line.split()[-2:] for line in lines[1:]] == [
        ["0.92", "1.88"],
        ["1.50", "6.50"],
        ["0.77", "1.61"],
        ["1.01", "4.40"],
    ]


def test_the_day_and_the_week_before_it_lie_in_the_test_period() -> None:
    observed, task = read(), weather().task()
    hours = observed.times[task.parts.part_N == splits.TEST]
    assert hours[0] <= DAY - WARM_UP
    assert hours[-1] >= DAY + 24
    assert task.look.roles.clock.time_N.astype("datetime64[h]").tolist() == observed.times.tolist()
