"""Client of Tidegate: recurrent networks served as streams, with their gates in view.

>>> with tidegate.connect("localhost:50051") as client, client.sequence("recall") as sequence:
...     answer = sequence.step([0.7, 1, 0])
...     answer.output, answer.layer[0].forget

What connects is loaded when it is first asked for: `import tidegate.answers` needs numpy alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.aio import AsyncClient
    from tidegate.aio_sequence import AsyncFleet, AsyncSequence
    from tidegate.answers import Answer, Answers, FleetAnswers, LayerTrace, Prediction
    from tidegate.client import Client, connect
    from tidegate.columns.column import Column
    from tidegate.errors import (
        AccessDenied,
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
    "AccessDenied", "Answer", "Answers", "AsyncClient", "AsyncFleet", "AsyncSequence", "BadInput", "Client", "Column",
    "ConnectionLost", "Fleet", "FleetAnswers", "Layer", "LayerTrace", "Model", "ModelNotReady", "NotTraced",
    "Prediction", "ProtocolError", "Refused", "Resuming", "Sequence", "SequenceEnded", "SequenceLost",
    "ServerBusy", "State", "StateSpec", "TensorSpec", "TidegateError", "TimedOut", "Trace", "UnknownModel",
    "connect",
]  # fmt: skip

if not TYPE_CHECKING:  # a type checker would take it that any name is there
    # Where a name is looked for: those that load the least come first.
    _MODULES = (
        "errors",
        "answers",
        "wire",
        "columns.column",
        "trace",
        "model",
        "inputs",
        "state",
        "transport.recovery",
    )
    _MODULES += ("sequence", "client", "aio_sequence", "aio")

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"tidegate.{name}")
        for module in _MODULES if name in __all__ else ():
            value = getattr(import_module(f"tidegate.{module}"), name, None)
            if value is not None and value.__module__ == f"tidegate.{module}":
                globals()[name] = value
                return value
        raise AttributeError(f"module 'tidegate' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *(name for name in _MODULES if "." not in name)})
