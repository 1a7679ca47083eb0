"""The window of steps that a network was trained on, as `model.toml` says it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """After so many steps the state begins anew; `last`: only the last of them is answered."""

    steps: int
    last: bool = False
