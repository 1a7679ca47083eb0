"""A version of a model, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from server.repository.folder import Found
from server.runtime.served_model import ServedModel
from stepgraph.errors import ModelRefused


class State(StrEnum):
    """What became of a version."""

    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Entry:
    """A version and what became of it: neither served nor refused while it loads."""

    found: Found
    served: ServedModel | None = None
    refusal: ModelRefused | None = None

    @property
    def state(self) -> State:
        if self.served is not None:
            return State.READY
        return State.LOADING if self.refusal is None else State.REFUSED
