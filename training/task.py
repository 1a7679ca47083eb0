"""What the trainer asks of a task, and the records that cross that line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType
    from torch import Tensor, nn

    from training.lookup import Lookup, OneHot
    from training.scaling import Scaling


@dataclass(frozen=True)
class Feature:
    """One number of a row. The unit is "" for a number without one; with categories it is the index of one of them."""

    name: str
    unit: str = ""
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """What goes into one step and what comes out, in the units that a client uses.

    With `classes` the outputs are scores, one for each class.
    """

    description: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    classes: tuple[str, ...] = ()
    said: Mapping[str, object] = field(default_factory=dict)
    """More about the inputs for clients: the keys of `tidegate.inputs`, such as `missing` and `calendar`."""


@dataclass(frozen=True)
class Report:
    """What is to be said about a trained network: for the eye, and as plain values for a JSON file."""

    picture: RenderableType
    values: dict[str, object]


class Task(Protocol):
    """Data and loss. What `loss` gives depends on the step's number alone, so a run can go on from any step."""

    @property
    def signature(self) -> Signature:
        """Names and units."""

    @property
    def scaling(self) -> Scaling | Lookup | OneHot | None:
        """How raw units become the network's own; None if they are the same."""

    @property
    def data(self) -> dict[str, str]:
        """Where the data is from: `source` and `sha256` of a file, or the generator's description."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was done to the data, to be said before training."""

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """The loss on the batch of this optimiser step: a scalar with a gradient."""

    def validation_loss(self, network: nn.Module) -> float:
        """The loss on data that training never sees."""

    def report(self, network: nn.Module) -> Report:
        """What the trained network achieves."""
