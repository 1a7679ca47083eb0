"""The networks that are compared: a cell, and what its gates' biases begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.config import Cell


@dataclass(frozen=True)
class Start:
    """A network by the name that the page gives it."""

    name: str
    cell: Cell
    forget_bias: float | None = None
    chrono: bool = False

    def changes(self, length: int) -> dict[str, Any]:
        """The settings of a recipe for sequences of this length."""
        chrono = max(3, length) if self.chrono else None
        return {"cell": self.cell, "forget_bias": self.forget_bias, "chrono": chrono}


RNN = Start("RNN", "rnn")
GRU = Start("GRU", "gru")
LSTM = Start("LSTM", "lstm")
LSTM_BIAS = Start("LSTM, forget bias 1", "lstm", forget_bias=1.0)
LSTM_CHRONO = Start("LSTM, chrono", "lstm", chrono=True)
STARTS = (RNN, GRU, LSTM, LSTM_BIAS, LSTM_CHRONO)
BY_NAME = {start.name: start for start in STARTS}
