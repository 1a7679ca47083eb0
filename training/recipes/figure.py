"""The lesson's figure: which gate is open at which step, computed from the weights by the textbook equations.

Legend: T time, H hidden units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from rich.table import Table

from training.initialisation import GATES
from training.task import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

# (value, write, read): the value at t=1 is to be said at t=4 and t=6; the values in between are there to disturb.
LESSON = (
    (-0.3, 0.0, 0.0),
    (0.8, 1.0, 0.0),
    (-0.5, 0.0, 0.0),
    (0.4, 0.0, 0.0),
    (-0.9, 0.0, 1.0),
    (0.6, 0.0, 0.0),
    (0.1, 0.0, 1.0),
)
WRITE = 1
OPEN, CLOSED = 0.9, 0.1


def draw(network: nn.Module) -> Report:
    """What the network answers to the lesson and, if it is an LSTM, the gates of its first unit at every step."""
    x_T3 = torch.tensor(LESSON)
    with torch.no_grad():
        answer_T = network(x_T3[None])[0, :, 0]
        gates = gates_of(network.get_submodule("cell"), x_T3)
    table = Table("", *(f"t={step}" for step in range(len(LESSON))))
    for name, column in (("value", 0), ("write", 1), ("read", 2)):
        table.add_row(name, *(f"{row[column]:g}" for row in LESSON))
    for name, gate_T in gates.items():
        table.add_row(f"{name} gate", *(f"{glyph(value)} {value:.2f}" for value in gate_T.tolist()))
    memory = memory_of_write(network.get_submodule("cell"), x_T3)
    table.add_row("memory of t=1", *("" if value is None else f"{value:.2f}" for value in memory))
    table.add_row("answer", *(f"{value:z.2f}" for value in answer_T.tolist()))
    values: dict[str, object] = {name: gate_T.tolist() for name, gate_T in gates.items()}
    return Report(table, values | {"memory": memory, "answer": answer_T.tolist()})


def glyph(value: float) -> str:
    """`o` for an open gate, `-` for a closed one, `~` in between."""
    return "o" if value > OPEN else "-" if value < CLOSED else "~"


def memory_of_write(cell: nn.Module, x_T3: Tensor) -> list[float | None]:
    """How much of the written value the state still holds, as a share of what it held at the write; None before it.

    It is the distance between the states that the lesson and its opposite, a written -0.8, lead to.
    """
    opposite_T3 = x_T3.clone()
    opposite_T3[WRITE, 0] *= -1
    pair_2T3 = torch.stack([x_T3, opposite_T3])
    state, distances = None, []
    with torch.no_grad():
        for step in range(len(LESSON)):
            _, state = cell(pair_2T3[:, step : step + 1], state)
            kept_L2H = state[1] if isinstance(state, tuple) else state
            distances.append((kept_L2H[:, 0] - kept_L2H[:, 1]).norm().item())
    return [distance / distances[WRITE] if step >= WRITE else None for step, distance in enumerate(distances)]


def gates_of(cell: nn.Module, x_TF: Tensor) -> dict[str, Tensor]:
    """The input, forget and output gate of an LSTM's first unit at each step, [T]; nothing for other cells."""
    weights = dict(cell.named_parameters())
    hidden = weights["weight_hh_l0"].shape[1]
    if weights["weight_ih_l0"].shape[0] != 4 * hidden or "weight_ih_l1" in weights:
        return {}
    h_H, c_H = torch.zeros(hidden), torch.zeros(hidden)
    seen = []
    for x_F in x_TF:
        i_H, f_H, g_H, o_H = lstm_gates(weights, x_F, h_H)
        c_H = f_H * c_H + i_H * g_H
        h_H = o_H * torch.tanh(c_H)
        seen.append(torch.stack([i_H[0], f_H[0], g_H[0], o_H[0]]))
    return {name: row_T for name, row_T in zip(GATES["lstm"], torch.stack(seen, 1), strict=True) if name != "candidate"}


def lstm_gates(weights: Mapping[str, Tensor], x_F: Tensor, h_H: Tensor) -> tuple[Tensor, ...]:
    """i, f, g, o of one step, each [H]."""
    from_x_4H = weights["weight_ih_l0"] @ x_F + weights["bias_ih_l0"]
    from_h_4H = weights["weight_hh_l0"] @ h_H + weights["bias_hh_l0"]
    i_H, f_H, g_H, o_H = (from_x_4H + from_h_4H).chunk(4)
    return torch.sigmoid(i_H), torch.sigmoid(f_H), torch.tanh(g_H), torch.sigmoid(o_H)
