"""A file that an interrupted fit goes on from: written whole or not at all."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch

from training.errors import CheckpointError
from training.fitting.atomic_files import write

if TYPE_CHECKING:
    from pathlib import Path


def save(state: dict[str, Any], path: Path) -> None:
    """Replace the file at `path` in one move, after its bytes are on the disk."""
    content = BytesIO()
    torch.save(state, content)
    write(path, content.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` was given, in the processor's memory.

    Raises:
        CheckpointError: the file is not one of ours, or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises whatever pickle and zip do
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}); --fresh starts anew") from error
    return state
