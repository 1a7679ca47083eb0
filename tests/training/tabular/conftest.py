from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from training.tabular.settings import Table, defaults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 700


def lines(gaps: bool = True, rows: int = ROWS, series: tuple[str, ...] = ("",)) -> list[str]:
    """Hourly rows of a load that follows the hour, a temperature, and the kind of day, with what real tables lack."""
    random = np.random.default_rng(1)
    found = ["when,load,temperature,kind,site"]
    for name in series:
        level = 0.0
        for row in range(rows):
            moment = np.datetime64("2024-01-01T00:00") + np.timedelta64(row, "h")
            level = 0.9 * level + random.normal() * 0.3
            temperature = 10 + 5 * np.sin(row / 24 * 2 * np.pi) + random.normal()
            load = 100 + 20 * np.sin((row - 6) / 24 * 2 * np.pi) + 5 * level + 0.5 * temperature
            if gaps and (row % 97 in (5, 6, 7) or 300 <= row < 312):
                continue
            cells = [f"{load:.3f}", f"{temperature:.2f}", ["work", "work", "rest"][row // 24 % 3], name]
            if gaps and random.random() < 0.1:
                cells[int(random.integers(3))] = ""
            found.append(",".join([str(moment).replace("T", " "), *cells]))
    return found


@pytest.fixture(scope="session")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CSV of two series with gaps, missing values and categories."""
    path = tmp_path_factory.mktemp("table") / "gappy.csv"
    path.write_text("\n".join(lines(series=("a", "b"))) + "\n")
    return str(path)


@pytest.fixture
def brief_table(tmp_path: Path, gappy: str) -> Callable[..., Table]:
    """A config of few steps on the table with gaps, in folders of its own."""

    def made(**changes: Any) -> Table:  # noqa: ANN401 - a field's value
        usual = defaults(
            files=(gappy,), name="gappy", target=("load",), series="site", horizons=(1, 6), hidden=6, steps=30, batch=4,
            evaluate_every=10, checkpoint_every=10, runs=tmp_path / "runs", models=tmp_path / "models",
        )  # fmt: skip
        return replace(usual, **changes)

    return made
