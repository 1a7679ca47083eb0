"""Client of Tidegate: recurrent networks served as streams, with their gates in view.

>>> with tidegate.connect("localhost:50051") as client, client.sequence("recall") as sequence:
...     answer = sequence.step([0.7, 1, 0])
...     answer.output, answer.layer[0].forget
"""

from tidegate.aio import AsyncClient
from tidegate.aio_sequence import AsyncFleet, AsyncSequence
from tidegate.answers import Answer, Answers, FleetAnswers, LayerTrace, Prediction
from tidegate.client import Client, connect
from tidegate.errors import (
    BadInput,
    ConnectionLost,
    ModelNotReady,
    NotTraced,
    ProtocolError,
    Refused,
    SequenceEnded,
    SequenceLost,
    ServerBusy,
    TidegateError,
    TimedOut,
    UnknownModel,
)
from tidegate.model import Layer, Model, StateSpec, TensorSpec
from tidegate.sequence import Fleet, Sequence
from tidegate.state import State
from tidegate.trace import Trace
from tidegate.transport.recovery import Resuming

__all__ = [
    "Answer",
    "Answers",
    "AsyncClient",
    "AsyncFleet",
    "AsyncSequence",
    "BadInput",
    "Client",
    "ConnectionLost",
    "Fleet",
    "FleetAnswers",
    "Layer",
    "LayerTrace",
    "Model",
    "ModelNotReady",
    "NotTraced",
    "Prediction",
    "ProtocolError",
    "Refused",
    "Resuming",
    "Sequence",
    "SequenceEnded",
    "SequenceLost",
    "ServerBusy",
    "State",
    "StateSpec",
    "TensorSpec",
    "TidegateError",
    "TimedOut",
    "Trace",
    "UnknownModel",
    "connect",
]
