"""How far what came is from what was forecast the step before, against a threshold: the model's own anomaly score.

Legend: B batch, T time, F inputs, G targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from training.tabular.learning.nodes import FLOAT, Nodes, values

if TYPE_CHECKING:
    from collections.abc import Sequence

# A forecast of the next step says nothing of a row that comes later than that.
LATE = 1.5


class Surprise(nn.Module):
    """Adds to each forecast the score of its row, 1 at the threshold; and 1 if it is above, else 0.

    A score is 0 where there is nothing to compare: at the first row, after a gap, and where the target is missing.
    """

    threshold_G: Tensor

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__()
        self.places = list(places)
        self.register_buffer("threshold_G", torch.ones(len(self.places)))

    def errors(self, y_BTG: Tensor, x_BTF: Tensor, elapsed_BT1: Tensor) -> Tensor:
        """|came - forecast| of each target, 0 where there is nothing to compare, [B, T, G]."""
        before_BTG = torch.cat([torch.zeros_like(y_BTG[:, :1]), y_BTG[:, :-1]], dim=1)
        error_BTG = (x_BTF[..., self.places] - before_BTG).abs().nan_to_num(0.0)
        first_T1 = (torch.arange(y_BTG.shape[1]) == 0)[:, None]
        return torch.where(first_T1 | (elapsed_BT1 > LATE), 0.0, error_BTG)

    def forward(self, y_BTG: Tensor, x_BTF: Tensor, elapsed_BT1: Tensor) -> Tensor:
        """[B, T, G + 2]."""
        score_BTG = self.errors(y_BTG, x_BTF, elapsed_BT1) / self.threshold_G
        score_BT1 = score_BTG.amax(dim=-1, keepdim=True)
        return torch.cat([y_BTG, score_BT1, (score_BT1 > 1).float()], dim=-1)

    def append_to(self, model: onnx.ModelProto, *, clock: bool) -> onnx.ModelProto:
        """The same as nodes behind the forecast, which is a state. `clock`: the graph knows the time between rows."""
        graph, width = model.graph, len(self.places)
        for node in graph.node:
            node.output[:] = ["forecast" if name == "y" else name for name in node.output]
        nodes = Nodes()
        came = nodes.pick("x", self.places, "came")
        states = [nodes.zeros("x", width, "forecast.start"), nodes.zeros("x", 1, "forecast.none")]
        inputs = ["forecast", came, *(["elapsed"] if clock else [])]
        nodes.scan("surprise", self._body(clock=clock), states, inputs, ["score"])
        above = nodes.add("Greater", ["score", nodes.constant("one.score", 1.0)], "above.score")
        nodes.add("Cast", [above], "anomaly", to=TensorProto.FLOAT)
        nodes.add("Concat", ["forecast", "score", "anomaly"], "y", axis=2)
        graph.node.extend(nodes.nodes)
        graph.initializer.extend(nodes.constants)
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("y", FLOAT, ["batch", "time", width + 2]))
        return model

    def _body(self, *, clock: bool) -> onnx.GraphProto:
        """One row: its score, and its forecast for the next."""
        width = len(self.places)
        body = Nodes("surprise.")
        away = body.add("Abs", [body.add("Sub", ["came_now", "forecast_before"], "surprise.away")], "surprise.size")
        unknown = body.add("IsNaN", [away], "surprise.unknown")
        known = body.add("Where", [unknown, body.constant("surprise.zero", 0.0), away], "surprise.known")
        scaled = body.add("Div", [known, body.constant("threshold", self.threshold_G.numpy())], "surprise.scaled")
        worst = body.add("ReduceMax", [scaled], "surprise.worst", axes=[1], keepdims=1)
        if clock:
            late = body.add("Greater", ["late_now", body.constant("surprise.late", LATE)], "surprise.is_late")
            worst = body.add("Where", [late, "surprise.zero", worst], "surprise.in_time")
        body.add("Mul", [worst, "begun"], "score_now")
        body.add("Identity", ["forecast_now"], "forecast_next")
        nought = body.add("Mul", ["begun", "surprise.zero"], "surprise.nought")
        body.add("Add", [nought, body.constant("surprise.one", 1.0)], "begun_next")
        inputs = [
            *values(("forecast_before",), width),
            *values(("begun",), 1),
            *values(("forecast_now", "came_now"), width),
        ]
        outputs = [*values(("forecast_next",), width), *values(("begun_next", "score_now"), 1)]
        inputs += values(("late_now",), 1) if clock else []
        return helper.make_graph(body.nodes, "surprise_body", inputs, outputs, body.constants)
