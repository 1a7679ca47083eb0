"""The lesson: one value is written, and asked for twice, through a served network. Asks; draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers
from tidegate.client import Client
from tidegate.drawing.glyphs import CLOSED, OPEN

# (value, write, read) of each step: what is written at step 1 is asked for at 4 and 6; the rest is there to disturb.
LESSON = (
    (-0.3, 0.0, 0.0),
    (0.8, 1.0, 0.0),
    (-0.5, 0.0, 0.0),
    (0.4, 0.0, 0.0),
    (-0.9, 0.0, 1.0),
    (0.6, 0.0, 0.0),
    (0.1, 0.0, 1.0),
)
WRITE, READS = 1, (4, 6)
VALUE = LESSON[WRITE][0]


@dataclass(frozen=True)
class Taken:
    """What one network answered to the lesson, and to the same lesson with the opposite value written."""

    answers: Answers
    opposite: Answers

    @cached_property
    def kept(self) -> NDArray[np.float64]:
        """The share of what was written that is still in the first unit, at each step from the write on."""
        distance = np.abs(_held(self.answers) - _held(self.opposite))[WRITE:]
        share: NDArray[np.float64] = distance / distance[0] if distance[0] else distance
        return share

    @property
    def recalled(self) -> tuple[float, ...]:
        """The answers to the reads."""
        return tuple(float(self.answers.output[step, 0]) for step in READS)

    def is_open(self, gate: str) -> tuple[int, ...]:
        """The steps at which a gate of the first unit is open."""
        return _steps(self.answers.layer[0][gate][:, 0] > OPEN)

    def is_closed(self, gate: str) -> tuple[int, ...]:
        """The steps at which it is closed."""
        return _steps(self.answers.layer[0][gate][:, 0] < CLOSED)

    @property
    def is_as_in_the_book(self) -> bool:
        """Whether every gate is fully open or closed where the lesson's figure has it."""
        steps = set(range(len(LESSON)))
        return all(
            set(self.is_open(gate)) >= opened and set(self.is_closed(gate)) >= closed
            for gate, opened, closed in (
                ("input", {WRITE}, steps - {WRITE}),
                ("forget", set(range(WRITE + 1, len(LESSON))), {WRITE}),
                ("output", set(READS), steps - set(READS)),
            )
        )


def take(client: Client, model: str) -> Taken:
    """Stream the lesson and its opposite, step by step. Raises TidegateError."""
    opposite = [(-value if step == WRITE else value, *flags) for step, (value, *flags) in enumerate(LESSON)]
    return Taken(_stream(client, model, LESSON), _stream(client, model, opposite))


def _stream(client: Client, model: str, rows: Sequence[Sequence[float]]) -> Answers:
    with client.sequence(model) as sequence:
        return block([sequence.step(row) for row in rows])


def block(answers: Sequence[Answer]) -> Answers:
    """Answers that came one by one as one block; all of them traced."""
    first = answers[0]
    outputs = {name: np.stack([answer.outputs[name] for answer in answers]) for name in first.outputs}
    trace = np.stack([answer.trace for answer in answers if answer.trace is not None])
    return Answers(outputs, trace, first.layout, first.step, len(answers))


def _held(answers: Answers) -> NDArray[np.float64]:
    """What the first unit carries from step to step, [T]."""
    layer = answers.layer[0]
    return layer["cell" if "cell" in layer.parts else "hidden"][:, 0].astype(np.float64)


def _steps(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(step) for step in np.flatnonzero(mask))
