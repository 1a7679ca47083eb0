"""The columns of a state or a gate in the row of all states, or in the row of a trace."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """A run of columns of the state or the trace: `name` ("hidden", "cell" or a gate) of layer `layer`.

    A state that the interface of the file carries has no layer; its name is that of the input.
    """

    layer: int | None
    name: str
    offset: int
    size: int

    @property
    def span(self) -> slice:
        return slice(self.offset, self.offset + self.size)
