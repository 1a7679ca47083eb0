"""The network of a table: first nodes, embedded categories, recurrence, head, last nodes.

Legend: B batch, T time, F inputs, E encoded inputs, C categories, H hidden units, Z head's numbers, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from training.fitting import processes
from training.initialisation import initialise
from training.network import CELLS, Trained
from training.tabular.learning.front import Encoded, Encoding, Front
from training.tabular.learning.graph import front_of
from training.tracing import trace

if TYPE_CHECKING:
    import onnx

    from training.config import Config
    from training.tabular.learning.surprise import Surprise

# How often a category is taken for one that was never seen, while the network learns: so that it knows what to do then.
UNSEEN = 0.02
WIDEST = 16
State = tuple[Tensor, ...]


class Core(nn.Module):
    """Everything between the first nodes and the outputs; `tail` turns the head's numbers into outputs."""

    def __init__(self, config: Config, encoding: Encoding, head: int, tail: nn.Module, dropout: float) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, min(WIDEST, size // 2 + 1)) for size in encoding.sizes)
        width = encoding.inputs + sum(table.embedding_dim for table in self.tables)  # type: ignore[misc] # a Module to mypy
        between = dropout if config.layers > 1 else 0.0
        self.cell = CELLS[config.cell](width, config.hidden, config.layers, batch_first=True, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden, head)
        self.inputs = encoding.inputs
        self.straight = nn.Linear(encoding.inputs, head, bias=False) if encoding.lags else None
        self.tail = tail
        initialise(self.cell, config)

    def forward(self, e_BTE: Tensor, k_BTC: Tensor) -> Tensor:
        """[B, T, O] in raw units, from a state of zeros."""
        return self.carried(e_BTE, k_BTC, None)[0]

    def carried(self, e_BTE: Tensor, k_BTC: Tensor, state: State | Tensor | None) -> tuple[Tensor, State | Tensor]:
        """The same from any state, with the state after the last step."""
        if self.training and len(self.tables):
            unseen_BTC = processes.random(k_BTC.shape) < UNSEEN
            k_BTC = k_BTC.masked_fill(unseen_BTC.to(k_BTC.device), 0)
        read_BTE = e_BTE[..., : self.inputs] if self.inputs < e_BTE.shape[-1] else e_BTE
        parts = [read_BTE, *(table(k_BTC[..., index]) for index, table in enumerate(self.tables))]
        h_BTH, after = self.cell(torch.cat(parts, dim=-1) if len(parts) > 1 else read_BTE, state)
        z_BTO = self.head(self.drop(h_BTH))
        if self.straight is not None:
            z_BTO = z_BTO + self.straight(read_BTE)
        y_BTO: Tensor = self.tail(z_BTO, e_BTE)
        return y_BTO, after


class Uncategorised(nn.Module):
    """A core without categories, for the exporter: an input that nothing reads cannot be exported."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, e_BTE: Tensor) -> Tensor:
        """[B, T, O] in raw units."""
        return self.core.carried(e_BTE, e_BTE[..., :0], None)[0]


class TableNetwork(Trained):
    """Raw rows in, raw answers out."""

    memory: Tensor

    def __init__(self, front: Front, core: Core, trials: Trials, lanes: int, surprise: Surprise | None) -> None:
        super().__init__()
        self.front = front
        self.core = core
        self.surprise = surprise
        self.layers = core.cell.num_layers
        self._trials = trials
        # The state at the end of each lane's last window: a buffer, so that a checkpoint has it.
        parts = 2 if isinstance(core.cell, nn.LSTM) else 1
        self.register_buffer("memory", torch.zeros(parts, core.cell.num_layers, lanes, core.cell.hidden_size))

    def forward(self, x_BTF: Tensor) -> Tensor:
        """[B, T, F] in raw units, of sequences from their first row on, to [B, T, O]."""
        encoded: Encoded = self.front(x_BTF)
        y_BTO: Tensor = self.core(encoded.e_BTE, encoded.k_BTC)
        return self.surprise(y_BTO, x_BTF, encoded.elapsed_BT1) if self.surprise else y_BTO

    def carry(self, e_BWE: Tensor, k_BWC: Tensor, fresh_B: Tensor) -> Tensor:
        """A window of each of this process's lanes, from where its last one ended, or from zeros where it is fresh."""
        lanes = processes.mine(self.memory.shape[2])
        device = self.memory.device
        before = self.memory[:, :, lanes].masked_fill(fresh_B[:, None].to(device), 0.0)
        state = (before[0], before[1]) if len(before) > 1 else before[0]
        y_BWO, after = self.core.carried(e_BWE.to(device), k_BWC.to(device), state)
        for memory_LBH, after_LBH in zip(self.memory, after if isinstance(after, tuple) else (after,), strict=True):
            memory_LBH[:, lanes] = after_LBH.detach()
        return y_BWO.to("cpu")

    def gather(self) -> None:
        """The state of every lane, of which each process has its own."""
        lanes = processes.mine(self.memory.shape[2])
        memory = torch.zeros_like(self.memory)
        memory[:, :, lanes] = self.memory[:, :, lanes]
        self.memory = processes.total(memory)

    def graph(self) -> onnx.ModelProto:
        """The whole of it as ONNX: the exporter writes the core, and the first nodes are put before it."""
        encoding = self.front.encoding
        e_BTE = torch.zeros(1, 3, encoding.width)
        if encoding.categories:
            core = trace(self.core, {"e": e_BTE, "k": torch.zeros(1, 3, len(encoding.sizes), dtype=torch.int64)})
        else:
            core = trace(Uncategorised(self.core), {"e": e_BTE})
        whole = front_of(core, encoding, self._trials.x_NF.shape[1])
        return self.surprise.append_to(whole, clock=bool(encoding.clock)) if self.surprise else whole

    def example(self, batch: int, length: int) -> Tensor:
        """Rows as the table has them, with more gaps, [B, T, F]."""
        return self._trials.draw(batch, length)


@dataclass(frozen=True)
class Trials:
    """Rows of the table that an export is tried on."""

    x_NF: Tensor
    gappy: tuple[int, ...]
    categories: tuple[int, ...]

    def draw(self, batch: int, length: int) -> Tensor:
        """Stretches of the table; a tenth of what may be missing is, and a tenth of the categories were never seen."""
        generator = torch.Generator().manual_seed(batch * 1000 + length)
        length = min(length, len(self.x_NF))
        start_B1 = torch.randint(len(self.x_NF) - length + 1, (batch, 1), generator=generator)
        x_BTF = self.x_NF[start_B1 + torch.arange(length)].clone()
        for places, value in ((self.gappy, float("nan")), (self.categories, 0.0)):
            for place in places:
                gone_BT = torch.rand(x_BTF.shape[:2], generator=generator) < 0.1
                x_BTF[..., place] = torch.where(gone_BT, value, x_BTF[..., place])
        return x_BTF
