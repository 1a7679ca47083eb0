"""`python -m bench.lab.epoch [--also]`: what an epoch of a table costs, beside a plain torch loop of the same sums.

Both learn the weather of Beijing with the same windows, one thread and no validation, in turns; the least
processor time of each counts. `--also`: beside ours in bfloat16, and compiled by torch.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.fitting.trainer import Trainer
from training.recipes.datafile import WEATHER
from training.tabular.settings import defaults
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.config import Cell
    from training.tabular.settings import Table

ROUNDS, MOST = 15, 1.10
CELLS: dict[Cell, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Bare:
    """What one would write by hand for this very table: windows, state carried, pinball loss of one number, Adam."""

    def __init__(self, config: Table, task: TableTask) -> None:
        self._task, self._epoch = task, task.lanes.epoch(1)
        core = task.network().core
        self._tables, self._cell, self._head, self._tail = core.tables, core.cell, core.head, core.tail
        self._parameters = list(core.parameters())
        self._optimiser = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True)
        self._clip, self._y_NG = config.clip, torch.from_numpy(task.aim.y_NG)  # type: ignore[attr-defined] # a forecast
        self._spread_G = task.aim.spread_G  # type: ignore[attr-defined]

    def epoch(self) -> None:
        """Every window once."""
        task, state = self._task, None
        for rows_BW in self._epoch.rows_SBW:
            place_BW = rows_BW.clamp(min=0)
            e_BWE, k_BWC = task.e_NE[place_BW], task.k_NC[place_BW]
            parts = [e_BWE, *(table(k_BWC[..., index]) for index, table in enumerate(self._tables))]
            h_BWH, state = self._cell(torch.cat(parts, dim=-1), state)
            y_BWO = self._tail(self._head(h_BWH), e_BWE)
            want_BWG = self._y_NG[place_BW]
            known_BWG = ~want_BWG.isnan() & (rows_BW >= 0)[..., None]
            error_BWG = (want_BWG.nan_to_num(0.0) - y_BWO).abs() / self._spread_G
            loss = (error_BWG * known_BWG).sum() / known_BWG.sum() / 2
            self._optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
            self._optimiser.step()
            state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
            loss.item()


def cost(work: Callable[[], None]) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(cell: Cell, folder: Path, *, also: bool) -> float:
    """An epoch of ours as a multiple of the plain loop's; prints both."""
    config = defaults(
        files=(str(WEATHER),), target=("TEMP",), horizons=(1, 6, 24), cell=cell, steps=10**6, evaluate_every=10**6,
        patience=10**6, runs=folder, models=folder,
    )  # fmt: skip
    task = TableTask(config, config.look())
    works = {"ours": epoch_of(Trainer(config, task), task), "plain": Bare(config, task).epoch}
    if also:
        compiled = Trainer(config, task)
        compiled.network.get_submodule("core").compile()
        works |= {"bfloat16": rounded(epoch_of(Trainer(config, task), task)), "compiled": epoch_of(compiled, task)}
    least = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        least = {name: min(least[name], cost(work)) for name, work in works.items()}
    ratio = least["ours"] / least["plain"]
    windows = f"{task.lanes.windows} x {config.batch} windows of {task.window} rows"
    print(f"{cell:5} {windows}: {least['ours']:.3f} s, the plain loop {least['plain']:.3f} s: {ratio:.3f}", flush=True)
    for name in list(works)[2:]:
        print(f"      {name}: {least[name] / least['ours']:.2f} of ours", flush=True)
    return ratio


def epoch_of(trainer: Trainer, task: TableTask) -> Callable[[], None]:
    """Every window once, by a trainer."""
    return lambda: trainer.fit(until=trainer.step + task.lanes.windows)


def rounded(work: Callable[[], None]) -> Callable[[], None]:
    """The same with products of matrices in bfloat16."""

    def rounding() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            work()

    return rounding


def main(arguments: list[str]) -> int:
    """Exit status 1 if one of the cells costs more than it may."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ratios = [compare(cell, Path(folder), also="--also" in arguments) for cell in CELLS]
    print(f"an epoch costs at most {max(ratios):.3f} of a plain loop's; {MOST:.2f} is the limit")
    return int(max(ratios) > MOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
