"""What an exchange needs of a protocol and of what carries its messages."""

from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from server.edge.pieces import Message
from server.errors import TidegateError
from server.meter import Meter
from server.streams.events import Answered, FleetAnswered

Request = Any  # what the dialect's deserialiser makes of a client's message


@dataclass(frozen=True, eq=False)
class Bundle:
    """A message of several requests, each of which may be parsed only when it is taken out.

    `large`: others get a turn before the first is, because the message took long to come in. `apart`: the requests are
    taken one by one, because each is parsed then.
    """

    requests: Iterable[Request]
    large: bool = False
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Large:
    """A message of about `size` bytes that takes long to make: `make` does it in pieces, when its turn has come."""

    size: int
    make: Callable[[], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """An answer that is a message already. Its stream counts its bytes until it has left."""

    message: Message
    size: int

    def kept(self) -> Self:
        """As it may wait: itself."""
        return self


ANSWERS = Answered, FleetAnswered, Whole
Outgoing = Answered | FleetAnswered | Whole | bytes | Large  # the last two carry no answer


class Listener(Protocol):
    """The callbacks for a call's messages."""

    def came(self) -> None:
        """There are messages, or there will be none any more."""

    def writable(self) -> None:
        """The call is not full any more."""

    def fail(self, error: BaseException) -> None:
        """The call has ended by an error."""


@runtime_checkable
class Call(Protocol):
    """One client's messages, in and out."""

    def begin(self, listener: Listener) -> None:
        """From now on `came` is called when there is a message, and `writable` when `full` has ended."""

    def take(self) -> Request | Bundle | None:
        """The next message; grpc.aio.EOF after the last; None: there is none yet, and the client may send one."""

    @property
    def several(self) -> bool:
        """Whether there are further messages, which came together with the one that was taken."""

    @property
    def asks(self) -> bool:
        """Whether `take` has to be called for what comes next: a message that is asked for, or the end."""

    def send(self, message: Message) -> None:
        """One message, or a few in a row, while it is not `full`."""

    @property
    def full(self) -> bool:
        """Whether what was sent last is still here, because the client does not read."""

    def end(self) -> None:
        """Nothing is to be called any more."""


class Served(Protocol):
    """What a client's requests are carried out on, and what bounds them: a `Stream`, or what a protocol has instead."""

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the client for now."""

    @property
    def working(self) -> bool:
        """Whether a request is being carried out; the next one has to wait."""

    def when_free(self, call: Callable[[], None]) -> None:
        """Has it called whenever it is not `working` any more, unless an event says so."""

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""

    def writes_later(self) -> bool:
        """Whether an answer is written later in this turn, with others that may come; if not, while it is emitted."""

    def written(self, size: int) -> None:
        """An answer that counted so many bytes has left."""

    def leave(self, done: Callable[[tuple[int, ...]], None]) -> None:
        """The server stops: `done` is called once the requests that were taken are carried out."""

    def release(self, handles: tuple[int, ...]) -> None:
        """Tells the client to go on elsewhere."""

    def finish(self, done: Callable[[], None]) -> None:
        """The client has sent its last request and has every answer; `done` is called once its sequences are kept."""

    def abandon(self) -> None:
        """The client is gone."""


class Single(Protocol):
    """A request that can be carried out together with those of other streams that are of the same kind."""

    @property
    def kind(self) -> Hashable:
        """What has to be equal."""

    @property
    def account(self) -> Meter:
        """Whose it is."""

    @property
    def request(self) -> Request:
        """To be carried out by itself."""


# Takes what makes the answers to some of the requests that were joined, each a message, and how many bytes each counts.
Write = Callable[[slice, Callable[[], Sequence[bytes]], int], None]


class Dialect(Protocol):
    """Translates between the messages of a protocol and the calls and events of what carries out its requests.

    `at_once`: how many requests that came together are given to `together`, at most. `joins`: whose
    requests these are, if `single` is to be asked.
    """

    at_once: int
    joins: Meter | None

    def together(self, those: Sequence[Request], stream: Any) -> bool:  # noqa: ANN401 # what the exchange was told to make
        """Carries out several requests as one; False: that cannot be done, and nothing was."""

    def single(self, request: Request, stream: Any) -> Single | None:  # noqa: ANN401 # likewise
        """A request that may be carried out together with such requests on other streams; None: it may not."""

    def join(self, singles: Sequence[Any], write: Write) -> bool:
        """Carries out several of them, of one kind, which may be of other streams; False: nothing was.

        After any other error than a refusal nobody knows what was.
        """

    def take(self, request: Request, stream: Any, company: bool) -> None:  # noqa: ANN401 # what the exchange was told to make
        """Carries out one request. `company`: others came in the same message. Raises TidegateError."""

    def refusal(self, request: Request, stream: Any, error: TidegateError) -> Any:  # noqa: ANN401 # likewise
        """The event for a request that was refused."""

    def write(self, event: Any) -> bytes | Large:  # noqa: ANN401 # of those that it emits
        """The message for one event."""

    def bundle(self, events: Sequence[Outgoing]) -> tuple[Sequence[Message], int]:
        """The next messages, one nearly always, and how many of these are in them; bytes are whole messages.

        The first is not Large.
        """
