"""The pipeline: fits recurrent networks on a person's own data and writes ONNX files into `models/`.

Knows nothing of the server that may read those files.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.tabular.frames import table

__all__ = ["table"]

# onnxruntime reads this when it is imported: since 1.29 it sends telemetry by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    """`training.table`, which loads torch when it is first asked for."""
    if name != "table":
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    return import_module("training.tabular.frames").table
