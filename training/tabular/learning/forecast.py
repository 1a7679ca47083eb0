"""The task of forecasting: one number, or several quantiles, of each target at each horizon.

Legend: N rows, B windows, W steps, E encoded inputs, G targets x horizons, Q quantiles, O = G x Q outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from training.errors import DataError
from training.fitting import processes
from training.tabular.learning import splits
from training.tabular.learning.surprise import Surprise
from training.tabular.looking.grid import counted
from training.task import Feature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.learning.front import Encoding
    from training.tabular.learning.inputs import Inputs
    from training.tabular.learning.network import Core
    from training.tabular.learning.splits import Parts
    from training.tabular.looking.grid import Grid
    from training.tabular.settings import Table


# A regression's ridge, as a share of the rows, and the most of a target's usual change that counts.
RIDGE, FAR = 1e-3, 10.0
# Rows of the training part that must know a target.
FEWEST = 20


@dataclass(frozen=True)
class Wanted:
    """One target at one horizon."""

    target: str
    steps: int
    unit: str = ""

    @property
    def title(self) -> str:
        """`load in MW, 24 ahead`."""
        return f"{self.target}{f' in {self.unit}' if self.unit else ''}, {self.steps} ahead"

    @property
    def name(self) -> str:
        """`load_in_24`."""
        return f"{self.target}_in_{self.steps}"


class Tail(nn.Module):
    """From the head's numbers to raw units: a change from the target's last value, or the last season's, or its mean.

    `levels`: where the level of each output's target is, which the forecast is multiplied by, if there are levels.
    """

    base_EG: Tensor
    offset_G: Tensor
    spread_G: Tensor
    sum_QQ: Tensor

    def __init__(
        self, base_EG: Tensor, offset_G: Tensor, spread_G: Tensor, f: str, quantiles: int, levels: list[int]
    ) -> None:
        super().__init__()
        self.f, self.quantiles, self.levels = f, quantiles, levels
        for name, value in (("base_EG", base_EG), ("offset_G", offset_G), ("spread_G", spread_G)):
            self.register_buffer(name, value)
        self.register_buffer("sum_QQ", torch.triu(torch.ones(quantiles, quantiles)))

    def forward(self, z_BTO: Tensor, e_BTE: Tensor) -> Tensor:
        """[B, T, G * Q] in raw units; a higher quantile is never below a lower one."""
        base_BTG = e_BTE @ self.base_EG + self.offset_G
        if self.quantiles == 1:
            y_BTG = base_BTG + self.spread_G * self.bounded(z_BTO)
            return y_BTG * e_BTE[..., self.levels] if self.levels else y_BTG
        groups = self.spread_G.shape[0]
        z_BTGQ = z_BTO.reshape(z_BTO.shape[0], z_BTO.shape[1], groups, self.quantiles)
        apart_BTGQ = torch.cat([z_BTGQ[..., :1], upward(z_BTGQ[..., 1:])], dim=-1)
        ordered_BTGQ = self.bounded(apart_BTGQ @ self.sum_QQ)
        y_BTGQ = base_BTG.unsqueeze(-1) + self.spread_G.unsqueeze(-1) * ordered_BTGQ
        if self.levels:
            y_BTGQ = y_BTGQ * e_BTE[..., self.levels].unsqueeze(-1)
        return y_BTGQ.reshape(z_BTO.shape[0], z_BTO.shape[1], groups * self.quantiles)

    def bounded(self, z: Tensor) -> Tensor:
        """The head's function f; each of them rises, so that quantiles stay in order."""
        if self.f == "relu":
            return torch.relu(z)
        if self.f == "sigmoid":
            return torch.sigmoid(z)
        return torch.tanh(z) if self.f == "tanh" else z


def upward(z: Tensor) -> Tensor:
    """A smooth function above 0, rising from 0 to z: (z + sqrt(z^2 + 1)) / 2. A softplus rounds by the batch's size."""
    return (z + torch.sqrt(z * z + 1)) / 2


class Forecast:
    """Targets at horizons, their loss, and the constants of the last nodes."""

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        config: Table,
        grid: Grid,
        parts: Parts,
        inputs: Inputs,
        targets: tuple[str, ...],
        *,
        anomaly: bool = False,
    ) -> None:
        self.config, self.inputs, self.anomaly = config, inputs, anomaly
        self.quantiles = tuple(sorted(set(config.quantiles))) or (0.5,)
        horizons, units = sorted(set(config.horizons)), config.units
        self.wanted = [Wanted(target, steps, units.get(target, "")) for target in targets for steps in horizons]
        now_NG = np.stack([inputs.x_NF[:, inputs.place(wanted.target)] for wanted in self.wanted], axis=1)
        columns = []
        for index, wanted in enumerate(self.wanted):
            place_N = parts.targets(grid, wanted.steps)
            columns.append(np.where(place_N >= 0, now_NG[place_N, index], np.nan))
        self.y_NG: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
        self._y_NG, self._share_Q = torch.from_numpy(self.y_NG), torch.tensor(self.quantiles)
        self._level_NG: Tensor | None = None
        self._part_N, self.learnt_N = parts.part_N, parts.part_N == splits.TRAINING
        self._require_targets("give shorter --horizons or more rows")

    def _require_targets(self, remedy: str) -> None:
        """Every horizon has something to learn from, and to be judged by."""
        for index, wanted in enumerate(self.wanted):
            for name, part in splits.PARTS.items():
                count = int((~self._y_NG[self._part_N == part, index].isnan()).sum())
                if count < (FEWEST if part == splits.TRAINING else 1):
                    raise DataError(
                        f"column {wanted.target!r}: {counted(count, 'row')} of the {name} part know its value "
                        f"{counted(wanted.steps, 'step')} later; {remedy}"
                    )

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """Names of the outputs, a target's horizons side by side, a horizon's quantiles within."""
        several = bool(self.config.quantiles)
        forecasts = tuple(
            Feature(f"{wanted.name}_q{share:g}" if several else wanted.name, wanted.unit)
            for wanted in self.wanted
            for share in self.quantiles
        )
        return (*forecasts, Feature("score"), Feature("anomaly")) if self.anomaly else forecasts

    @property
    def width(self) -> int:
        return len(self.wanted) * len(self.quantiles)

    def tail(self, encoding: Encoding, e_NE: Tensor, period: int | None) -> Tail:
        """The last nodes, whose constants are learnt from the training part alone."""
        base_EG = torch.zeros(encoding.width, len(self.wanted))
        offset_G, spread_G = torch.zeros(len(self.wanted)), torch.ones(len(self.wanted))
        lagged = [self._lagged(encoding, each) for each in self.wanted] if encoding.least else []
        levels = [encoding.inputs + place for place in lagged]
        if levels:
            self._level_NG = e_NE[:, levels]
            # At the least level nothing but zeros is known of the target: no forecast is a share of that.
            known_NG = self._level_NG > torch.tensor([encoding.least[place] for place in lagged])
            self._y_NG = torch.where(known_NG, self._y_NG, torch.nan)
            self._require_targets("leave --relative out")
        for index, wanted in enumerate(self.wanted):
            place = encoding.numbers.index(self.inputs.place(wanted.target))
            y_N = self._y_NG[self.learnt_N, index].numpy()
            if self.config.f != "linear":
                offset_G[index], spread_G[index] = reach(self.config.f, float(np.nanmin(y_N)), float(np.nanmax(y_N)))
                continue
            unit, offset_G[index] = (1.0, 1.0) if levels else (encoding.deviation_n[place], encoding.mean_n[place])
            share_N = y_N / e_NE[self.learnt_N, levels[index]].numpy() if levels else y_N
            want_N = (share_N - offset_G[index].numpy()) / np.float32(unit)  # as the target is encoded
            bases = [place, *self._season(encoding, wanted, period)]
            errors = [np.nanmean(np.abs(want_N - e_NE[self.learnt_N, base].numpy())) for base in bases]
            best, level = int(np.argmin(errors)), np.nanmean(np.abs(want_N))
            if errors[best] < level:
                base_EG[bases[best], index] = unit
            spread_G[index] = float(max(unit * min(errors[best], level), 1e-6))
        self.spread_G = spread_G
        return Tail(base_EG, offset_G, spread_G, self.config.f, len(self.quantiles), levels)

    def _lagged(self, encoding: Encoding, wanted: Wanted) -> int:
        """Which of the numbers that have lags a target is."""
        return encoding.lagged.index(encoding.numbers.index(self.inputs.place(wanted.target)))

    def _season(self, encoding: Encoding, wanted: Wanted, period: int | None) -> list[int]:
        """The lag that is the same moment of the last season; none where the lags do not reach so far."""
        if not period or not encoding.lags:
            return []
        back = period * -(-wanted.steps // period) - wanted.steps
        if not 1 <= back <= encoding.lags:
            return []
        return [encoding.first_lag + encoding.lags * self._lagged(encoding, wanted) + back - 1]

    def begin(self, core: Core, e_NE: Tensor) -> bool:
        """Begin the fit with the regression on what the recurrence gets; false: there are no lags."""
        if core.straight is None or self.config.f != "linear":
            return False
        tail, one = core.tail, e_NE.new_ones(())
        assert isinstance(tail, Tail)
        level_NG = one if self._level_NG is None else self._level_NG
        z_NG = (self._y_NG / level_NG - e_NE @ tail.base_EG - tail.offset_G) / tail.spread_G
        learnt_N = torch.from_numpy(self.learnt_N)
        weights_EG, free_G = regression(e_NE[learnt_N, : core.inputs], z_NG[learnt_N])
        with torch.no_grad():
            for place in (core.straight.weight, core.head.weight):
                place.zero_()
            lowest = slice(None, None, len(self.quantiles))
            core.straight.weight[lowest] = weights_EG.T
            core.head.bias[lowest] = free_G
        return True

    def surprise(self) -> Surprise | None:
        """What compares the forecast of one step ahead with what came, if that is the task."""
        return Surprise([self.inputs.place(wanted.target) for wanted in self.wanted]) if self.anomaly else None

    def loss(self, y_BWO: Tensor, rows_BW: Tensor, *, learning: bool) -> Tensor:
        """Mean pinball loss in units of the target's usual change; of one number, half the absolute error."""
        there_BW = rows_BW >= 0
        want_BWG = self._y_NG[rows_BW.clamp(min=0)]
        known_BWG = there_BW[..., None] & ~want_BWG.isnan()
        error_BWGQ = want_BWG.nan_to_num(0.0)[..., None] - y_BWO.reshape(*want_BWG.shape, len(self.quantiles))
        share_BWGQ = self._share_Q - (error_BWGQ < 0).float()
        if self._level_NG is not None:  # each series counts in units of its own
            error_BWGQ = error_BWGQ / self._level_NG[rows_BW.clamp(min=0)][..., None]
        pinball_BWGQ = error_BWGQ * (share_BWGQ / self.spread_G[:, None])
        known = known_BWG[..., None]
        count = processes.average(known.sum()) if learning else known.sum()
        return (pinball_BWGQ * known).sum() / (count * len(self.quantiles)).clamp(min=1)

    def middle(self, y_NO: NDArray[np.float32]) -> NDArray[np.float32]:
        """The forecast of one number: the quantile nearest to the median, [N, G]."""
        nearest = int(np.argmin(np.abs(np.array(self.quantiles) - 0.5)))
        return y_NO[:, : self.width].reshape(len(y_NO), len(self.wanted), len(self.quantiles))[:, :, nearest]


def reach(f: str, lowest: float, highest: float) -> tuple[float, float]:
    """Offset and spread with which a bounded function covers what was seen."""
    if f == "relu":
        return 0.0, max(abs(highest), 1e-6)
    if f == "sigmoid":
        return lowest, max(highest - lowest, 1e-6)
    return (lowest + highest) / 2, max((highest - lowest) / 2, 1e-6)


def regression(x_NE: Tensor, z_NG: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and free terms of a ridge regression for each of G, on the rows that know it; far outliers count less."""
    mean_E, deviation_E = x_NE.mean(dim=0), x_NE.std(dim=0) + 1e-6
    weights, free = [], []
    for z_N in z_NG.T:
        known_N = ~z_N.isnan()
        s_NE, want_N = ((x_NE[known_N] - mean_E) / deviation_E).double(), z_N[known_N].double().clamp(-FAR, FAR)
        square_EE = s_NE.T @ s_NE + RIDGE * len(s_NE) * torch.eye(s_NE.shape[1], dtype=torch.float64)
        found_E = torch.linalg.solve(square_EE, s_NE.T @ (want_N - want_N.mean()))
        free.append(want_N.mean() - s_NE.mean(dim=0) @ found_E - (mean_E / deviation_E) @ found_E.float())
        weights.append(found_E / deviation_E)
    return torch.stack(weights, dim=1).float(), torch.stack(free).float()
