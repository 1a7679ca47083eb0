"""Answers as a caller reads them: outputs by name, and the inside by layer and gate. Needs numpy alone.

Shapes: T steps of a chunk, T' of them traced; N sequences of a fleet, N' of them traced; H the layer's hidden size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import NotTraced

Array: TypeAlias = NDArray[Any]
Outputs = Mapping[str, Array]

_ANSWERED = "tidegate/answered"  # an output of models that answer only the last step of each window


@dataclass(frozen=True, slots=True)
class TraceLayout:
    """Where each part of a trace stands: columns[layer][part] is a slice of its last axis. `every`: see Trace."""

    columns: Mapping[int, Mapping[str, slice]]
    every: int = 1

    def traced(self, steps: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these steps have a trace, as a mask of the same shape."""
        if not self.columns:
            return np.zeros(steps.shape, bool)
        if self.every == 1:
            return np.ones(steps.shape, bool)
        mask: NDArray[np.bool_] = steps % np.uint64(self.every) == 0
        return mask


class LayerTrace:
    """One layer's hidden and cell state and gates, by name: [H] in one answer, [T', H] or [N', H] in a block.

    An attribute that the layer does not have, or that was not selected, raises NotTraced, which says what there is.
    """

    hidden: Array
    cell: Array
    input: Array
    forget: Array
    candidate: Array
    output: Array
    update: Array
    reset: Array

    def __init__(self, index: int, columns: Mapping[str, slice], values: Array) -> None:
        self.index = index
        self._columns = columns
        self._values = values

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what this trace shows."""
        return tuple(self._columns)

    def __getitem__(self, part: str) -> Array:
        return getattr(self, part)  # type: ignore[no-any-return] # every part is an array

    def __getattr__(self, part: str) -> Array:
        columns = self.__dict__.get("_columns", {})
        if part not in columns:
            shown = ", ".join(columns) or "nothing"
            raise NotTraced(f"layer {self.__dict__.get('index')} shows no {part!r} here; it shows {shown}")
        return self._values[..., columns[part]]

    def __repr__(self) -> str:
        return f"LayerTrace({self.index}: {', '.join(self._columns)})"


class Layers(Mapping[int, LayerTrace]):
    """The traced layers by their index in the model, which need not start at 0 if only some were selected."""

    def __init__(self, layout: TraceLayout, values: Array) -> None:
        self._layout = layout
        self._values = values

    def __getitem__(self, index: int) -> LayerTrace:
        columns = self._layout.columns.get(index)
        if columns is None:
            raise NotTraced(f"layer {index} is not in this trace; it shows the layers {sorted(self._layout.columns)}")
        return LayerTrace(index, columns, self._values)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._layout.columns))

    def __len__(self) -> int:
        return len(self._layout.columns)


@dataclass(frozen=True)
class _Traced:
    """What every answer has: outputs, and perhaps a trace ([columns] or [rows, columns])."""

    outputs: Outputs
    trace: Array | None
    layout: TraceLayout

    @property
    def output(self) -> Array:
        """The output of a model that has just one."""
        names = [name for name in self.outputs if name != _ANSWERED]
        if len(names) != 1:
            raise AttributeError(f"the model has {len(names)} outputs: read .outputs[name] of {names}")
        return self.outputs[names[0]]

    def _are_answered(self, count: int) -> NDArray[np.bool_]:
        given = self.outputs.get(_ANSWERED)
        return np.ones(count, np.bool_) if given is None else given.reshape(count)

    @cached_property
    def layer(self) -> Layers:
        """The traced layers by index. Raises NotTraced if this answer has no trace."""
        if self.trace is None:
            raise NotTraced(self._why_not())
        return Layers(self.layout, self.trace)

    def _why_not(self) -> str:
        if not self.layout.columns:
            return "no trace was selected: open the sequence with trace=True or a tidegate.Trace"
        return f"no trace here: this sequence shows every {self.layout.every}. step"


@dataclass(frozen=True, init=False)
class Answer(_Traced):
    """The answer to one step: outputs [...row], and the inside after it ([H] for each part of each layer).

    The first `checkpointed` steps of the sequence are safe in a checkpoint on the server.
    """

    step: int
    checkpointed: int = 0

    def __init__(
        self, outputs: Outputs, trace: Array | None, layout: TraceLayout, step: int, checkpointed: int = 0
    ) -> None:
        # It is frozen; that of a dataclass takes three times as long.
        self.__dict__.update(outputs=outputs, trace=trace, layout=layout, step=step, checkpointed=checkpointed)

    @property
    def answered(self) -> bool:
        """False where the model answers the last step of each window only, and this is another: no output counts."""
        return bool(self._are_answered(1)[0])


@dataclass(frozen=True)
class _Block(_Traced):
    """T consecutive steps of one sequence: outputs [T, ...row], the inside [T', H] of the steps `traced_steps` [T']."""

    first_step: int
    count: int
    checkpointed: int = 0

    @cached_property
    def steps(self) -> NDArray[np.uint64]:
        """The number of each step, [T]."""
        return np.arange(self.first_step, self.first_step + self.count, dtype=np.uint64)

    @cached_property
    def traced_steps(self) -> NDArray[np.uint64]:
        """The numbers of the steps whose inside is shown, [T']."""
        return self.steps[self.layout.traced(self.steps)]

    @property
    def answered(self) -> NDArray[np.bool_]:
        """As of an Answer, for each step, [T]."""
        return self._are_answered(self.count)

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, row: int) -> Answer: ...

    @overload
    def __getitem__(self, row: slice) -> list[Answer]: ...

    def __getitem__(self, row: int | slice) -> Answer | list[Answer]:
        """The answer of one row, or of each of some, as it would have come alone; negative rows count from the end."""
        if isinstance(row, slice):
            return [self[at] for at in range(self.count)[row]]
        at = range(self.count)[row]
        step = self.first_step + at
        outputs = {name: array[at] for name, array in self.outputs.items()}
        return Answer(outputs, self._trace_row(step), self.layout, step, self.checkpointed)

    def __iter__(self) -> Iterator[Answer]:
        return (self[row] for row in range(self.count))

    def _trace_row(self, step: int) -> Array | None:
        if self.trace is None or step % self.layout.every:
            return None
        first = -(-self.first_step // self.layout.every)  # the first traced step, counted in multiples of `every`
        row: Array = self.trace[step // self.layout.every - first]
        return row


@dataclass(frozen=True)
class FleetAnswers(_Traced):
    """One step of each of N sequences: outputs [N, ...row], the inside [N', H] of those in `traced_members`.

    `members` [N] are the numbers of the sequences within their fleet, in the order of the inputs; `steps` [N] the step
    that each of them took; `checkpointed` [N] as in Answer.
    """

    members: NDArray[np.int64]
    steps: NDArray[np.uint64]
    checkpointed: NDArray[np.uint64]

    @cached_property
    def traced_members(self) -> NDArray[np.int64]:
        """The members whose inside is shown, [N']."""
        return self.members[self.layout.traced(self.steps)]

    @property
    def answered(self) -> NDArray[np.bool_]:
        """As of an Answer, for each sequence, [N]."""
        return self._are_answered(len(self.members))

    def __len__(self) -> int:
        return len(self.members)


@dataclass(frozen=True)
class Answers(_Block):
    """The answers to a chunk of T steps: outputs [T, ...row], the inside [T', H] of the steps `traced_steps` [T'].

    Its length is T, and each of its items the answer to one step.
    """


@dataclass(frozen=True)
class Prediction(_Block):
    """A whole sequence at once, read as Answers are, and which version of the model computed it."""

    model: str = ""
    version: int = 0
