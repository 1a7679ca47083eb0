"""A place in a sequence, kept in a file, from which another process can go on later."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zipfile import BadZipFile

import numpy as np

from tidegate.answers import Array
from tidegate.errors import TidegateError
from tidegate.files import replacing
from tidegate.trace import NOTHING, Trace

_FORMAT = 1


class BadBookmark(TidegateError):
    """A file that holds no bookmark, or one of a later format; the message says which."""


@dataclass(frozen=True, eq=False)
class Bookmark:
    """One sequence, and where its reader stands: `answered` steps were shown. `series`: that of its rows, see Legend.

    `inputs` are those from step `first` on, [K, ...row] by name: steps that the server may want again, and then perhaps
    some that were sent and not answered. `token` is a secret: it is enough to take the sequence over. `rewinding`
    is the step of a rewind that may or may not have been carried out: its command was stopped meanwhile. `trace` is
    what was shown of the inside of its steps.
    """

    server: str
    model: str
    version: int
    id: str
    token: str = field(repr=False)
    answered: int = 0
    first: int = 0
    rewinding: int | None = None
    inputs: Mapping[str, Array] = field(default_factory=dict, repr=False)
    trace: Trace = field(default_factory=Trace)
    series: tuple[str, ...] = ()

    @property
    def sent(self) -> int:
        """The number of the first step without an input."""
        return self.first + (len(next(iter(self.inputs.values()))) if self.inputs else 0)

    def since(self, step: int) -> dict[str, Array]:
        """The inputs from `step` on. Raises BadBookmark if they begin later."""
        if step < self.first:
            why = f"the server wants the inputs from step {step} on again; this bookmark has those from {self.first} on"
            raise BadBookmark(why)
        return {name: array[step - self.first :] for name, array in self.inputs.items()}

    def at(self, step: int) -> "Bookmark":
        """The same sequence, gone back to `step`."""
        rows = max(0, step - self.first)
        inputs = {name: array[:rows] for name, array in self.inputs.items()} if rows else {}
        return replace(self, answered=step, first=min(self.first, step), inputs=inputs, rewinding=None)

    def moved(self, step: int, version: int) -> "Bookmark":
        """The same sequence, on another version from `step` on.

        Drops the inputs before that step: they belong to the earlier version, and the server has written the move.
        """
        return replace(self, version=version, answered=step, first=step, inputs=self.since(step))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it in one piece, readable by its owner alone."""
        head = {"format": _FORMAT, "server": self.server, "model": self.model, "version": self.version, "id": self.id}
        head |= {"token": self.token, "answered": self.answered, "first": self.first}
        head |= {} if self.rewinding is None else {"rewinding": self.rewinding}
        head |= {"traced": not self.trace.nothing, "every": self.trace.every}
        head |= {} if self.trace.layers is None else {"layers": [*self.trace.layers]}
        pending = {name: np.asarray(value) for name, value in head.items()}
        pending |= {"names": np.array(list(self.inputs), np.str_), "series": np.array(self.series, np.str_)}
        pending |= {f"input{at}": array for at, array in enumerate(self.inputs.values())}
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **pending)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bookmark":
        """From a file that `save` wrote. Raises BadBookmark, OSError."""
        try:
            with np.load(path, allow_pickle=False) as file:
                if int(file["format"]) != _FORMAT:
                    raise BadBookmark(
                        f"{os.fspath(path)} was kept by another release of tidegate: its format is not known here"
                    )
                texts: dict[str, Any] = {name: str(file[name]) for name in ("server", "model", "id", "token")}
                names = ("version", "answered", "first", *({"rewinding"} & {*file}))
                numbers: dict[str, Any] = {name: int(file[name]) for name in names}
                inputs = {name: file[f"input{at}"] for at, name in enumerate(file["names"].tolist())}
                series = tuple(file["series"].tolist()) if "series" in file else ()
                return cls(**texts, **numbers, inputs=inputs, trace=_trace(file), series=series)
        except (KeyError, ValueError, BadZipFile, AttributeError, EOFError):
            raise BadBookmark(f"{os.fspath(path)} is not a file that `tidegate stream --keep` wrote") from None


def _trace(file: Mapping[str, Array]) -> Trace:
    """What a bookmark of an earlier release does not say: everything."""
    if not file.get("traced", True):
        return NOTHING
    layers = tuple(file["layers"].tolist()) if "layers" in file else None
    return Trace(layers=layers, every=int(file.get("every", 1)))


class Bookmarks:
    """Keeps a file up to date while a sequence runs: at its end, and before it once in `every` seconds at most."""

    def __init__(
        self,
        path: str,
        now: Callable[[int], Bookmark],
        saved: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
        every: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._path = path
        self._now = now  # the bookmark where so many steps were shown
        self._saved = saved  # called with how many answers the file has
        self._clock, self._every = clock, every
        self._written = clock()

    def shown(self, step: int) -> None:
        if self._clock() - self._written >= self._every():
            self.write(step + 1)

    def write(self, answered: int) -> Bookmark:
        bookmark = self._now(answered)
        bookmark.save(self._path)
        self._saved(answered)
        self._written = self._clock()
        return bookmark
