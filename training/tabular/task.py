"""A table as a task: its rows encoded once, split, cut into windows, and scored as one stream for each series.

Legend: N rows, F inputs, E encoded inputs, C categories, B lanes, W steps of a window, O outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from training.errors import ConfigError
from training.fitting import processes
from training.fitting.device import through
from training.tabular.inheriting import inherit
from training.tabular.judging.baselines import season
from training.tabular.judging.classes import judge_classes
from training.tabular.judging.verdict import judge
from training.tabular.learning import splits
from training.tabular.learning.classify import Classify
from training.tabular.learning.forecast import Forecast
from training.tabular.learning.front import Front, encoding_of
from training.tabular.learning.inputs import SERIES, as_before, inputs_of, legend
from training.tabular.learning.lags import NO_LAGS, Lags
from training.tabular.learning.network import Core, TableNetwork, Trials
from training.tabular.learning.windows import Epoch, Lanes
from training.tabular.looking.grid import counted, steps_ahead
from training.task import Feature, Report, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from training.scaling import Scaling
    from training.tabular.inheriting import Inherited
    from training.tabular.learning.aim import Aim
    from training.tabular.learning.surprise import Surprise
    from training.tabular.looking.look import Look
    from training.tabular.settings import Table

# Series that are shorter than so many times the longest horizon are held back whole.
SHORT = 10
WINDOWS = (32, 256)
MOST_TRIALS = 20000
PADDED = 1 << 17


class TableTask:
    """What a table is to be learnt from and judged by."""

    scaling: Scaling | None = None

    def __init__(self, config: Table, look: Look) -> None:
        self.config, self.look = config, look
        self.parts = self._split()
        self.learnt_N = self.parts.part_N == splits.TRAINING
        self.series_known = self.parts.by == "time" and 1 < len(look.grid.names) <= SERIES
        self.before = inherit(config.from_) if config.from_ else None
        if self.before:
            self.inputs, self.encoding = as_before(look, self.before.columns), self.before.encoding
        else:
            self.inputs = inputs_of(look, self.learnt_N, series=self.series_known)
            lags = Lags(look.roles.targets, config.lags, config.relative) if config.lags else NO_LAGS
            self.encoding = encoding_of(self.inputs, self.learnt_N, look.grid.step.seconds, lags)
        self.front = Front(self.encoding)
        self.x_NF = torch.from_numpy(self.inputs.x_NF)
        self._encode()
        self.aim = self._aim()
        like = next(iter(self.inputs.places("number")), None)
        self.period = None if like is None else season(look.grid, self.inputs.x_NF[:, like], self.learnt_N)
        if config.refit and (self.parts.by != "time" or isinstance(self.aim, Classify)):
            raise ConfigError(
                "--refit: only forecasts whose test is the last stretch of time; give --split time or none"
            )
        self._tail = self.aim.tail(self.encoding, self.e_NE, self.period)
        self.lag = config.lag or max(self.period or 0, *config.horizons)
        self.window = config.window or int(np.clip(2 * self.lag, *WINDOWS))
        spans = self.parts.spans(look.grid, splits.TRAINING, 0)
        self.lanes = Lanes(tuple((first, end) for _, first, end in spans), self.window, config.batch, config.seed)
        self._epoch: tuple[int, Epoch] = (-1, self.lanes.epoch(0))

    def _split(self) -> splits.Parts:
        """By time, or by series where they are too short for that."""
        config, grid = self.config, self.look.grid
        gap = max(config.horizons)
        longest = max(end - start for start, end in grid.bounds)
        short = longest < SHORT * gap and len(grid.names) >= splits.FEWEST_SERIES
        if config.split == "series" or (config.split is None and short):
            return splits.by_series(grid, config.training_share, config.validation_share, config.seed)
        return splits.by_time(grid, config.training_share, config.validation_share, gap)

    def _aim(self) -> Aim:
        """The task that the target, or the person, chose."""
        config, look = self.config, self.look
        if look.roles.goal == "classify":
            return Classify(look, self.parts)
        anomaly = look.roles.goal == "anomaly"
        return Forecast(config, look.grid, self.parts, self.inputs, look.roles.targets, anomaly=anomaly)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The quantiles that are forecast; one for a forecast of one number, none for classes."""
        return self.aim.quantiles if isinstance(self.aim, Forecast) else ()

    def _encode(self) -> None:
        """Run the first nodes over each series once: no row is encoded again while it learns."""
        found = [self.front(self.x_NF[None, start:end]) for start, end in self.look.grid.bounds]
        self.e_NE = torch.cat([part.e_BTE[0] for part in found])
        self.k_NC = torch.cat([part.k_BTC[0] for part in found])

    @property
    def signature(self) -> Signature:
        """Names, and what a client must know to send rows of the very table."""
        units = self.config.units
        inputs = tuple(
            Feature(column.name, units.get(column.source or column.name, "")) for column in self.inputs.columns
        )
        return Signature(self.description, inputs, self.aim.outputs, self.aim.classes, legend(self.inputs, self.look))

    @property
    def description(self) -> str:
        """What the model does, in a sentence."""
        if isinstance(self.aim, Classify):
            of = "each series" if self.aim.whole else "each step"
            return f"Tells {', '.join(self.aim.classes)} apart for {of}, from {self.look.rows.name}."
        horizons = steps_ahead(sorted(set(self.config.horizons)))
        targets, step = ", ".join(self.look.roles.targets), self.look.grid.step
        return f"Forecasts {targets} {horizons} (a step is {step.with_article}) from {self.look.rows.name}."

    @property
    def data(self) -> dict[str, str]:
        """The files, by their names and content."""
        return {"source": ", ".join(self.look.rows.origin.names), "sha256": self.look.rows.sha256}

    @property
    def notes(self) -> tuple[str, ...]:
        """How the rows were split, and what was chosen from the data."""
        rows = " / ".join(f"{self.parts.rows(part):,}" for part in splits.PARTS.values())
        gap = f", with a gap of {counted(self.parts.gap, 'step')} between" if self.parts.by == "time" else ""
        season = f"a season of {self.period} steps" if self.period else "no season"
        if self.period and self.period > self.config.lags and isinstance(self.aim, Forecast):
            season += f" (with --lags {self.period} a forecast may begin from the last one)"
        strange = self.aim.strange if isinstance(self.aim, Classify) else ()
        return (
            f"split by {self.parts.by}: {rows} rows of training / validation / test{gap}",
            f"{season}; the first weights are made to remember {counted(self.lag, 'step')}",
            f"the gradient is cut every {self.window} steps, and the state goes on",
            *([f"rows of {', '.join(strange)} are not judged: the training part has none"] if strange else []),
        )

    def network(self) -> TableNetwork:
        config = self.config.with_lag(self.lag)
        core = Core(config, self.encoding, self.aim.width, self._tail, config.dropout)
        gappy = tuple(place for place, column in enumerate(self.inputs.columns) if column.missing)
        trials = Trials(self.x_NF[:MOST_TRIALS], gappy, self.encoding.categories)
        network = TableNetwork(self.front, core, trials, config.batch, self.aim.surprise())
        if isinstance(self.aim, Forecast):
            network.fitted = self.aim.begin(core, self.e_NE)
        if self.before:
            self._take_over(network, self.before)
            network.fitted = True
        return network

    def _take_over(self, network: TableNetwork, before: Inherited) -> None:
        """Begin with the weights of an earlier run, and with its scaling."""
        try:
            network.load_state_dict(before.weights | {"memory": network.memory})
        except RuntimeError:
            raise ConfigError(
                f"--from: the network of {before.run} is another; leave --cell, --hidden, --layers, --target, "
                "--horizons and --quantiles out, and give a table with the same classes"
            ) from None
        if isinstance(self.aim, Forecast):
            self.aim.spread_G = network.get_buffer("core.tail.spread_G")

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """The loss on one window of each lane; the state that it ends with is where the next step begins."""
        assert isinstance(network, TableNetwork)
        number, window = divmod(step, self.lanes.windows)
        if number != self._epoch[0]:
            self._epoch = (number, self.lanes.epoch(number))
        lanes = processes.mine(self.config.batch)
        rows_BW, fresh_B = self._epoch[1].rows_SBW[window][lanes], self._epoch[1].fresh_SB[window][lanes]
        place_BW = rows_BW.clamp(min=0)
        y_BWO = network.carry(self.e_NE[place_BW], self.k_NC[place_BW], fresh_B)
        return self.aim.loss(y_BWO, rows_BW, learning=True)

    def validation_loss(self, network: nn.Module) -> float:
        """The loss on the validation part, each series as one stream."""
        y_NO = self.answers(network, splits.VALIDATION)
        there_N = torch.from_numpy(np.flatnonzero(self.parts.part_N == splits.VALIDATION))
        return self.aim.loss(y_NO[there_N][None], there_N[None], learning=False).item()

    def answers(self, network: nn.Module, part: int) -> Tensor:
        """The answers to the rows of a part, [N, O], NaN elsewhere; each stream begins some rows before."""
        assert isinstance(network, TableNetwork)
        spans = self.parts.spans(self.look.grid, part, self.lead)
        y_NO = torch.full((len(self.x_NF), self.aim.width), float("nan"))
        for group in groups(spans):
            length = max(end - begin for begin, _, end in group)
            rows_BT = torch.stack([(begin + torch.arange(length)).clamp(max=end - 1) for begin, _, end in group])
            with torch.no_grad():
                y_BTO = through(network.core, self.e_NE[rows_BT], self.k_NC[rows_BT])
            for index, (begin, first, end) in enumerate(group):
                y_NO[first:end] = y_BTO[index, first - begin : end - begin]
        return y_NO

    @property
    def lead(self) -> int:
        """Rows before the first one that is scored, while the state settles."""
        return 2 * self.window if self.parts.by == "time" else 0

    def served(self, network: nn.Module, part: int) -> NDArray[np.float32]:
        """The answers as a client gets them, who begins each series `lead` rows before the part, [N, O]."""
        y_NO = np.full((len(self.x_NF), len(self.aim.outputs)), np.nan, dtype=np.float32)
        for begin, first, end in self.parts.spans(self.look.grid, part, self.lead):
            with torch.no_grad():
                y_NO[first:end] = network(self.x_NF[None, begin:end])[0, first - begin :].numpy()
        return y_NO

    def report(self, network: nn.Module) -> Report:
        """The test, beside what needs no network; an anomaly's threshold is chosen first, on the validation part."""
        assert isinstance(network, TableNetwork)
        if network.surprise:
            self.choose_threshold(network, network.surprise)
        y_NO = self.served(network, splits.TEST)
        return judge_classes(self, self.aim, y_NO) if isinstance(self.aim, Classify) else judge(self, y_NO)

    def choose_threshold(self, network: TableNetwork, surprise: Surprise) -> None:
        """The error that is exceeded in so small a share of the validation part, of each target."""
        errors = []
        for begin, first, end in self.parts.spans(self.look.grid, splits.VALIDATION, self.lead):
            x_1TF = self.x_NF[None, begin:end]
            with torch.no_grad():
                encoded = network.front(x_1TF)
                y_1TG = network.core(encoded.e_BTE, encoded.k_BTC)
                errors.append(surprise.errors(y_1TG, x_1TF, encoded.elapsed_BT1)[0, first - begin :])
        error_NG = torch.cat(errors)
        threshold_G = torch.quantile(error_NG, 1 - self.config.alarms, dim=0).clamp(min=1e-6)
        surprise.threshold_G.copy_(threshold_G)


def groups(spans: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Spans of similar length together, so that little is padded and no batch is too large."""
    found: list[list[tuple[int, int, int]]] = []
    for span in sorted(spans, key=lambda span: span[2] - span[0], reverse=True):
        longest = found[-1][0][2] - found[-1][0][0] if found else 0
        if found and longest * (len(found[-1]) + 1) <= PADDED and 2 * (span[2] - span[0]) >= longest:
            found[-1].append(span)
        else:
            found.append([span])
    return found
