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
    "Answer", "Answers", "AsyncClient", "AsyncFleet", "AsyncSequence", "BadInput", "Client", "ConnectionLost",
    "Fleet", "FleetAnswers", "Layer", "LayerTrace", "Model", "ModelNotReady", "NotTraced", "Prediction",
    "ProtocolError", "Refused", "Resuming", "Sequence", "SequenceEnded", "SequenceLost", "ServerBusy", "State",
    "StateSpec", "TensorSpec", "TidegateError", "TimedOut", "Trace", "UnknownModel", "connect",
]  # fmt: skip

if not TYPE_CHECKING:  # a type checker would take it that any name is there
    # Where each name is; the others are errors.
    _MODULES = {
        "aio": ("AsyncClient",),
        "aio_sequence": ("AsyncFleet", "AsyncSequence"),
        "answers": ("Answer", "Answers", "FleetAnswers", "LayerTrace", "Prediction"),
        "client": ("Client", "connect"),
        "inputs": (),
        "model": ("Layer", "Model", "StateSpec", "TensorSpec"),
        "sequence": ("Fleet", "Sequence"),
        "state": ("State",),
        "trace": ("Trace",),
        "transport.recovery": ("Resuming",),
        "wire": (),
    }
    _MODULE_OF = dict.fromkeys(__all__, "errors") | {name: module for module in _MODULES for name in _MODULES[module]}

    def __getattr__(name: str) -> object:
        if name in _MODULES or name == "errors":
            return import_module(f"tidegate.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'tidegate' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"tidegate.{_MODULE_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *(name for name in _MODULES if "." not in name)})
