"""What can go wrong with a model file, and with a step of it.

StepgraphError
├── ModelRefused   a file that cannot be made a step graph, with the node and the reason
│   └── Imprecise  one that only differs by its rounding
├── AxesUnknown    batch and time cannot be found among the free axes of a file
├── BadInput       a row that the model does not take
└── StepFailed     the model could not compute a step
"""

from collections.abc import Sequence

_LONGEST = 2_000  # characters of a sentence: what is wrong may be in it, and may be a megabyte


class StepgraphError(Exception):
    """The root. `str(error)` is one sentence: what was wrong, where, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(cut(message))


class ModelRefused(StepgraphError):
    """A model file that cannot be served. The sentence names the node, its operator and the reason.

    What a file calls its nodes may hold anything: what cannot be printed is escaped, and what is very long is cut.
    `node` is that node's name, or its first output's where it has none; None where no one node is to blame.
    `remedy` are the lines of a model.toml with which the file was served when that was tried.
    """

    def __init__(self, message: str, node: str | None = None, remedy: Sequence[str] = ()) -> None:
        super().__init__(_printable(message))
        self.node = node
        self.remedy = tuple(remedy)


class Imprecise(ModelRefused):
    """A file whose steps are found, and whose rounding is larger than may be: no other reading does better."""


class AxesUnknown(StepgraphError):
    """Batch and time cannot be found among the free axes of a file; others may have to be freed. `node` as above."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


class BadInput(StepgraphError, ValueError):
    """A row that the model does not take. The sentence says which input, and what was expected."""


class StepFailed(StepgraphError):
    """The model could not compute a step; the states given to it are as they were."""


def cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut(text))
