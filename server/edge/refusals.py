"""What clients were refused: counted by reason and by token, and handed to the log."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.caller import Caller
from server.errors import Reason, TidegateError
from server.streams.events import Failed
from server.streams.stream import Stream

NONE = "none"  # the class of owners without a token


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal. `ids`: the first so many ids of the sequences that it concerns."""

    reason: Reason
    sentence: str
    request: str  # its kind; empty: it could not be read
    owner: str
    owner_class: str  # the name of its token, or NONE: there are few of them
    ids: Callable[[int], Sequence[str]]


class Refusals:
    """Counts the refusals of all protocols. `tell` is called with each; it has to be quick."""

    def __init__(self) -> None:
        # by reason and class of owner; 0 for each reason, or the first one would not be seen to rise
        self.counts = Counter({(reason.name, NONE): 0 for reason in Reason if reason is not Reason.UNSPECIFIED})
        self.tell: Callable[[Refused], None] = lambda _: None

    def of(self, caller: Caller) -> Callable[[Failed, Stream], None]:
        """Notes what is refused on a client's stream."""
        return lambda failed, stream: self.note(
            failed.error, caller, failed.request, lambda most: stream.handles.ids(failed.handles[:most])
        )

    def note(
        self, error: TidegateError, caller: Caller, request: str, ids: Callable[[int], Sequence[str]] = lambda _: ()
    ) -> None:
        if error.reason is Reason.UNSPECIFIED:  # a stream that was silent: nothing was refused
            return
        owner_class = caller.token or NONE
        self.counts[error.reason.name, owner_class] += 1
        self.tell(Refused(error.reason, str(error), request, caller.owner, owner_class, ids))
