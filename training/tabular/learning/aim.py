"""What a task of a table provides: its outputs, the last nodes, its loss. Legend: B windows, W steps, O outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.tabular.learning.front import Encoding
    from training.tabular.learning.surprise import Surprise
    from training.task import Feature


class Aim(Protocol):
    """A task of a table. `width` is how many numbers the head gives, and the last nodes make of them."""

    classes: tuple[str, ...]

    @property
    def width(self) -> int: ...

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """Names of the model's outputs."""

    def tail(self, encoding: Encoding, e_NE: Tensor, period: int | None) -> nn.Module:
        """The last nodes, whose constants are learnt from the training part alone. `period`: the season, in steps."""

    def surprise(self) -> Surprise | None:
        """What compares a forecast with what came, if the task is about that."""

    def loss(self, y_BWO: Tensor, rows_BW: Tensor, *, learning: bool) -> Tensor:
        """The loss on some rows of the table, -1 for none.

        `learning`: with the weights of rare classes, and as a part of what all processes have.
        """
