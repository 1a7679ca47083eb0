"""What can be set about a table's training, beside what every recipe has."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from training.config import PLACES, Config
from training.errors import ConfigError
from training.tabular.looking.look import Look, read_and_look
from training.tabular.looking.roles import Asked, Goal
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from training.tabular.learning.network import TableNetwork

# From this lag on the gates' biases are spread over time scales; below it a forget bias of 1 remembers long enough.
CHRONO = 20
MOST_LAGS = 1000
MOST_REFITS = 50
COLUMNS = ("files", "target", "series", "category", "known", "static", "ignore", "unit")
Split = Literal["time", "series"]
Function = Literal["linear", "tanh", "sigmoid", "relu"]


@dataclass(frozen=True, kw_only=True)
class Table(Config):
    """Settings of a table's training."""

    recipe: ClassVar[str] = "table"

    # the table
    files: tuple[str, ...]
    """CSV, Parquet or JSON files, which may be gzipped; several, or a glob."""
    target: tuple[str, ...] = ()
    """The columns that are to be learnt."""
    task_: Goal | None = None
    """What is to be learnt of the target; none: the target decides."""
    horizons: tuple[int, ...] = (1,)
    """How many steps ahead a forecast looks, as 1,6,24."""
    quantiles: tuple[float, ...] = ()
    """Quantiles to forecast, as 0.1,0.5,0.9; without any, one number is forecast."""
    series: tuple[str, ...] = ()
    """The columns that tell series apart: rows with the same values in all of them are a series."""
    time: str | None = None
    """The column of times; none: the one that holds some."""
    category: tuple[str, ...] = ()
    """Columns whose numbers are names of categories."""
    known: tuple[str, ...] = ()
    """Columns that are known ahead, as a holiday or a planned price: what they are at a forecast's time is an input."""
    static: tuple[str, ...] = ()
    """Columns that are the same in all rows of a series, which is checked."""
    ignore: tuple[str, ...] = ()
    """Columns that are left out."""
    unit: tuple[str, ...] = ()
    """Units of columns, as TEMP=degC; they are written into the model's file and change no number."""

    alarms: float = 0.01
    """Anomaly: share of the validation part whose errors are beyond the threshold."""

    from_: str | None = None
    """Folder of an earlier run, whose inputs, scaling and weights this one begins with."""

    # the split
    split: Split | None = None
    """What is held back: the last stretch of time, or whole series; none: time where series are long enough."""
    training_share: float = 0.7
    """Share of the time, the oldest, or of the series, to learn from."""
    validation_share: float = 0.15
    """Share that decides when to stop; the rest is the test."""
    refit: int = 0
    """Forecasts: fit so many times more, each time to more rows of the test, and say on the card what that gains."""

    # what the model keeps of a forecast's target
    lags: int = 0
    """So many values of the target before the last one are inputs too, which the head gets also past the recurrence;
    the fit begins with their linear regression, and a forecast with the last season's value where they reach it."""
    relative: bool = False
    """Forecast in units of each series' own level, the mean size of its last value and its lags: for series of
    different sizes, or that grow."""

    # the network
    f: Function = "linear"
    """The head's function: linear reaches any number, relu none below 0, sigmoid and tanh none beyond what was seen."""
    dropout: float = 0.0
    """Share of the units that are left out at random between layers, and below the head, while it learns."""
    lag: int | None = None
    """Steps that are worth remembering, which the first weights are made for; none: the season of the data. [steps]"""
    window: int | None = None
    """Steps from one cut of the gradient to the next; the state is carried on; none: from the lag. [steps]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in COLUMNS:
            given = getattr(self, name)  # a run of before, or a program, may say one name, or none
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given or ()))
        self.require("training_share", 0 < self.training_share < 1, "must lie between 0 and 1")
        free = 1 - self.training_share
        self.require("validation_share", 0 < self.validation_share < free, f"must lie between 0 and {free:g}")
        self.require("dropout", 0 <= self.dropout < 1, "must lie from 0 to below 1")
        self.require("horizons", len(self.horizons) > 0 and min(self.horizons) >= 1, "must be at least 1")
        self.require("quantiles", all(0 < share < 1 for share in self.quantiles), "must lie between 0 and 1")
        self.require("lags", self.lags == 0 or 2 <= self.lags <= MOST_LAGS, f"must be 0, or from 2 to {MOST_LAGS}")
        self.require("refit", 0 <= self.refit <= MOST_REFITS, f"must lie from 0 to {MOST_REFITS}")
        self.require("unit", all("=" in text for text in self.unit), "must be written as COLUMN=UNIT")
        self.require("alarms", 0 < self.alarms < 1, "must lie between 0 and 1")
        self.refuse_contradictions()
        self.require("lag", self.lag is None or self.lag >= 1, "must be at least 1, or none")
        self.require("window", self.window is None or self.window >= 2, "must be at least 2, or none")

    def refuse_contradictions(self) -> None:
        """What a task has no use for."""
        if self.task_ == "anomaly" and (self.horizons != (1,) or self.quantiles):
            raise ConfigError(
                "--task anomaly compares one forecast of one step ahead: leave --horizons and --quantiles out"
            )
        if self.task_ == "classify" and (self.quantiles or self.f != "linear"):
            raise ConfigError("--task classify gives probabilities by a softmax: leave --quantiles and --f out")
        if self.task_ == "classify" and self.known:
            raise ConfigError("--task classify looks at no time ahead: leave --known out")
        if self.task_ == "classify" and self.lags:
            raise ConfigError("--task classify: only a forecast has lags; leave --lags out")
        if self.relative and (not self.lags or self.f != "linear"):
            raise ConfigError("--relative: a level is the mean size of the last values; give --lags, and leave --f out")
        if self.static and not self.series:
            raise ConfigError("--static: a column is the same in all rows of a series; say which with --series")

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column that has one."""
        return dict(text.split("=", 1) for text in self.unit)

    @property
    def asked(self) -> Asked:
        return Asked(
            self.target, self.task_, self.series, self.time, self.category, self.ignore, self.known, self.static,
            tuple(self.units),
        )  # fmt: skip

    def look(self) -> Look:
        return read_and_look(self.files, self.asked, tuple(sorted(set(self.horizons))))

    def task(self) -> TableTask:
        return TableTask(self, self.look())

    def network(self, task: Any) -> TableNetwork:  # noqa: ANN401 - the task that this config made
        network: TableNetwork = task.network()
        return network

    def with_lag(self, lag: int) -> Table:
        """With first weights that remember so many steps, if nothing else is said of them."""
        if self.forget_bias is not None or self.chrono is not None:
            return self
        return replace(self, forget_bias=1.0) if lag < CHRONO else replace(self, chrono=lag)

    def as_json(self) -> dict[str, Any]:
        """What decides the result: the files are told apart by their content."""
        return {key: value for key, value in asdict(self).items() if key not in (*PLACES, "files")}


def defaults(**changes: Any) -> Table:  # noqa: ANN401 - a field's value
    """What suits most tables of some thousand rows, with some of it changed."""
    usual: dict[str, Any] = {
        "name": "table",
        "files": (),
        "cell": "lstm",
        "hidden": 48,
        "steps": 1500,
        "batch": 16,
        "learning_rate": 0.005,
        "decay": 0.5,
        "evaluate_every": 50,
        "patience": 10,
        "checkpoint_every": 200,
    }
    return Table(**(usual | changes))
