"""An ONNX file in, one proved step with its gates out. Knows no sequence and no server.

>>> model = stepgraph.load("model.onnx")
>>> answer, state = model.step([0.7, 1, 0])
>>> answer, state = model.step([0.1, 0, 0], state)
>>> answer.output, answer.layer[0].forget

What loads and checks is imported when it is first asked for.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepgraph.checking import Checked, check
    from stepgraph.errors import BadInput, ModelRefused, StepFailed, StepgraphError
    from stepgraph.library import Model, State, load

# onnxruntime sends telemetry by default from 1.29 on, and reads this once, when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = ["BadInput", "Checked", "Model", "ModelRefused", "State", "StepFailed", "StepgraphError", "check", "load"]

_HOMES = {"checking": ("Checked", "check"), "library": ("Model", "State", "load")}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'stepgraph' has no attribute {name!r}")
    return getattr(import_module(f"stepgraph.{_MODULES.get(name, 'errors')}"), name)
