"""Every recipe as it stands reaches the figure of its docstring: `make test-recipes`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from training.fitting.session import train
from training.recipes.full import FORMS, PAGE, Form, measure, page
from training.recipes.weather import weather

RUNS = Path(__file__).parents[2] / ".recipes"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.recipe}: {form.network}")
def test_a_recipe_reaches_the_figure_of_its_docstring(form: Form) -> None:
    row = measure(form, RUNS, Console(highlight=False, soft_wrap=True))
    assert not row.failed, row.markdown()


def test_the_weather_is_forecast_with_an_error_a_quarter_below_the_best_naive_one() -> None:
    result = train(replace(weather(), runs=RUNS, models=RUNS / "models"))
    assert result.report.values["score"] < 0.75


def test_the_page_is_of_these_figures() -> None:
    rows = [measure(form, RUNS, Console(quiet=True)) for form in FORMS]
    PAGE.write_text(page(rows), encoding="utf-8")
    assert not any(row.failed for row in rows)
