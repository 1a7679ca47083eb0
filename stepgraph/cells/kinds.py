"""The cells that are known: a new one is a file beside this one, and its name here."""

import onnx

from stepgraph.cells import gru, lstm, quantised_lstm, rnn
from stepgraph.cells.cell import Kind, Operator

KINDS = {each.KIND.name: each.KIND for each in (rnn, lstm, gru)}
OPERATORS = {o.name: o for each in (rnn, lstm, gru, quantised_lstm) for o in each.OPERATORS}


def operator_of(node: onnx.NodeProto) -> Operator | None:
    """The recurrent operator that a node is of; None if of another."""
    return OPERATORS.get(node.op_type)


def named(name: str) -> Kind | None:
    """The kind of that name."""
    return KINDS.get(name)
