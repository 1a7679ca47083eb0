"""What is asked of a server: how many sequences, on how many streams, how much in a message. It knows no server."""

from dataclasses import dataclass
from typing import Literal

FEATURES = 8
OUTPUTS = 4
LAYERS = 2
HIDDEN_SIZES = (32, 128, 256)

Protocol = Literal["native", "inference"]
Layout = Literal["streams", "connections", "multiplexed", "bundled", "fleet"]


@dataclass(frozen=True)
class Scenario:
    """A closed loop: every sequence sends its next message when the whole answer to the last one is there."""

    # The hidden size of the model; both of its layers have it.
    hidden: int
    # How many sequences are open at once.
    sequences: int
    # A stream for each sequence on one connection, or each on a connection of its own, or all sequences on one stream,
    # a message each or together what is ready at the same time, or all of them in every message.
    layout: Layout = "streams"
    # How many steps of one sequence a message carries.
    steps: int = 1
    # Whether every answer shows hidden, cell and gates of every layer.
    traces: bool = False
    # In whose words: our own, or those of the Open Inference Protocol.
    protocol: Protocol = "native"

    @property
    def model(self) -> str:
        """The name under which the model stands in the repository."""
        return model_name(self.hidden)

    @property
    def steps_per_message(self) -> int:
        """Steps of all sequences in one message."""
        return self.sequences if self.layout == "fleet" else self.steps


def model_name(hidden: int) -> str:
    return f"lstm{hidden}"
