"""The networks that torch's exporters write: cells, and what people put around them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

FEATURES, HIDDEN, OUTPUTS, TOKENS = 3, 4, 2, 7


class Net(nn.Module):
    """Cells and a head; what lies between them, others say."""

    def __init__(self, kind: str = "LSTM", layers: int = 1, inputs: int = FEATURES, **options: object) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(inputs, HIDDEN, layers, **({"batch_first": True} | options))
        self.head = nn.Linear(self.cell.proj_size or HIDDEN * (1 + self.cell.bidirectional), OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


class LastOnly(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Shown(Net):
    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(x, (h, c))
        return self.head(y), h, c


class ShownAlone(Net):
    """The one state of a GRU or an RNN."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        y, h = self.cell(x, h)
        return self.head(y), h


class Lengths(Net):
    """Sequences of unequal lengths, packed."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        y, _ = self.cell(nn.utils.rnn.pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False))
        return self.head(nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0])


class Tokens(Net):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.embedding(x))


class Convolved(Net):
    """A convolution over time in front."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(FEATURES, FEATURES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(x.transpose(1, 2)).transpose(1, 2))


class Causal(Net):
    """Before the cell, something that looks back over steps."""

    def __init__(self, back: Callable[[Tensor], Tensor], inputs: int = FEATURES) -> None:
        super().__init__("GRU", inputs=inputs)
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.back(x))


class Attending(Net):
    """Attention over all steps, after the cells."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.head(torch.softmax(y @ y.transpose(1, 2), -1) @ y)


class Scanned(Net):
    """A GRU that is written with torch's own `scan` over the steps, and computed by torch as what it is."""

    def __init__(self) -> None:
        super().__init__("GRU")

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().forward(x)
        _, y = scan(lambda h, x_T: (self.step(x_T, h), self.step(x_T, h)), self.start(x), x.transpose(0, 1), dim=0)
        return self.head(y.transpose(0, 1))

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        cell = self.cell
        return torch.gru_cell(x, h, cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0)


class Looped(Scanned):
    """The same with torch's `while_loop`: the number of the step and all answers are carried too."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().forward(x)
        steps = x.shape[1]

        def body(i: Tensor, h: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            h = self.step(torch.index_select(x, 1, i.reshape(1)).squeeze(1), h)
            return i + 1, h.clone(), torch.index_copy(y, 1, i.reshape(1), h.unsqueeze(1))

        carried = (torch.tensor(0), self.start(x), x.new_zeros(x.shape[0], steps, HIDDEN))
        return self.head(while_loop(lambda i, _h, _y: i < steps, body, carried)[2])


class OneStep(nn.Module):
    """A cell that torch computes with ordinary operators, for one step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, HIDDEN)
        self.head = nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        h, c = self.cell(x, (h, c))
        return self.head(h), h, c
