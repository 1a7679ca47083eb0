"""A rolling origin with a refit: the test in stretches, before each of which the network is fitted to all rows before.

The part that decides when to stop is always the one before the stretch. Legend: N rows, K fits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from training.tabular.judging.card import table
from training.tabular.judging.verdict import compare
from training.tabular.learning import splits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.tabular.comparing import Fitted
    from training.tabular.judging.verdict import Compared
    from training.tabular.settings import Table


def later(config: Table) -> list[Table]:
    """The settings of each further fit: what is learnt from ends later, what is held back begins later."""
    known = config.training_share + config.validation_share
    ends = [known + (1 - known) * stretch / (config.refit + 1) for stretch in range(1, config.refit + 1)]
    return [replace(config, training_share=end - config.validation_share, refit=0) for end in ends]


def told(first: Fitted, more: Sequence[Fitted]) -> str:
    """The errors of one fit and of all of them, on the same rows of the test, as Markdown."""
    fits = (first, *more)
    found = [compared(fit) for fit in fits]
    latest_N = np.searchsorted([first_tick(fit) for fit in fits], first.task.look.grid.tick_N, side="right") - 1
    rows = []
    for index, once in enumerate(found[0]):
        each_KN = np.stack([several[index].forecasts["model"] for several in found])
        again_N = np.take_along_axis(each_KN, latest_N.clip(min=0)[None], axis=0)[0]
        there_N = once.scored_N & ~np.isnan(again_N)
        forecasts = (once.forecasts["model"], again_N, once.forecasts[once.naive])
        means = [f"{np.abs(forecast_N - once.came_N)[there_N].mean():.4g}" for forecast_N in forecasts]
        rows.append([once.wanted.title, *means, int(there_N.sum())])
    text = f"The test in {len(fits)} stretches; before each but the first the network is fitted again, with more rows. "
    names = ["", "fitted once", f"fitted {len(fits)} times", "best naive", "rows"]
    return f"## Fitted again\n\n{text}Mean absolute error of the rows that both forecast:\n\n" + table(names, rows)


def compared(fit: Fitted) -> list[Compared]:
    """The forecasts of a fit for the rows of its test."""
    return compare(fit.task, fit.task.served(fit.trainer.network, splits.TEST))


def first_tick(fit: Fitted) -> int:
    """Where the test of a fit begins."""
    return int(fit.task.look.grid.tick_N[fit.task.parts.part_N == splits.TEST].min())
