"""The cells that are known: a new one is a file beside this one, and its name here."""

import onnx

from stepgraph.cells import gru, lstm, min_gru, quantised_lstm, rnn
from stepgraph.cells.cell import Operator

KINDS = {each.KIND.name: each.KIND for each in (rnn, lstm, gru, min_gru)}
OPERATORS = {o.name: o for each in (rnn, lstm, gru, quantised_lstm) for o in each.OPERATORS}


def operator_of(node: onnx.NodeProto) -> Operator | None:
    return OPERATORS.get(node.op_type)
