"""Going on from an earlier run with new data: its inputs, its scaling and its weights.

A model that is fitted on must read a row as it did before, so nothing is learnt anew about the columns.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError
from training.fitting import atomic_files, checkpoint
from training.tabular.learning.front import Encoding
from training.tabular.learning.inputs import Input

if TYPE_CHECKING:
    from training.tabular.learning.inputs import Inputs

FILE = "inputs.json"


@dataclass(frozen=True)
class Inherited:
    """What an earlier run knew of its table, and its best weights."""

    run: str
    columns: tuple[Input, ...]
    encoding: Encoding
    weights: dict[str, Any]


def keep(folder: Path, inputs: Inputs, encoding: Encoding) -> None:
    """Write down, beside a run's checkpoint, what a later one needs."""
    said = {"columns": [asdict(column) for column in inputs.columns], "encoding": asdict(encoding)}
    atomic_files.write(folder / FILE, json.dumps(said, indent=1) + "\n")


def inherit(run: str) -> Inherited:
    """Read it.

    Raises:
        ConfigError: the folder holds no finished run of a table.
    """
    folder = Path(run)
    if not (folder / FILE).exists():
        raise ConfigError(f"--from: {run} holds no finished run of a table; give its folder, as runs/NAME/1a2b3c4d")
    said = json.loads((folder / FILE).read_text())
    columns = tuple(Input(**entry | {"categories": tuple(entry["categories"])}) for entry in said["columns"])
    encoding = Encoding(**{name: frozen(value) for name, value in said["encoding"].items()})
    return Inherited(run, columns, encoding, checkpoint.load(folder / "checkpoint.pt")["best"])


def frozen(value: Any) -> Any:  # noqa: ANN401 - what JSON gives
    return tuple(frozen(each) for each in value) if isinstance(value, list) else value
