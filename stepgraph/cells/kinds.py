"""The cells that are known: a new one is a file beside this one, and its name here."""

import onnx

from stepgraph.cells import causal_conv, gru, linear_attention, lstm, min_gru, min_lstm, quantised_lstm, rnn, slstm
from stepgraph.cells.cell import Operator

# those that a file may name in its metadata, and those that have operators
KINDS = {each.KIND.name: each.KIND for each in (rnn, lstm, gru, min_gru, min_lstm, slstm)}
_WITH_OPERATORS = (rnn, lstm, gru, quantised_lstm, linear_attention, causal_conv)
OPERATORS = {operator.name: operator for each in _WITH_OPERATORS for operator in each.OPERATORS}


def operator_of(node: onnx.NodeProto) -> Operator | None:
    return OPERATORS.get(node.op_type)
