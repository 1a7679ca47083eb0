"""Which client asks: a value that the edge makes for each stream or call, and that opening, resuming and limits get."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from server.errors import OverLimit, PermissionDenied, Reason
from server.meter import Meter

TOKEN = "token:"  # noqa: S105 # begins the account of a caller with a token


class Right(StrEnum):
    """What a client may do with the models that its token names."""

    PREDICT = "predict"  # open sequences, step, resume and close its own, list and describe models
    OBSERVE = "observe"  # read only: list and show everybody's sequences, statistics
    ADMINISTER = "administer"  # observe, and end sequences, load and unload models, the store


EVERY_RIGHT = frozenset(Right)
PUBLIC_RIGHTS = frozenset({Right.PREDICT})  # of everybody, where there are no tokens


@dataclass(frozen=True, slots=True)
class Caller:
    """A client as rights and limits see it.

    The owner's name that a client gives is a label, not a proof: limits count it within the client's account, so that
    no client uses up what belongs to others by taking their name.
    """

    address: str = ""  # the client's host, without its port
    who: str = ""  # the owner's name that it gave; empty: none
    token: str = ""  # the name of the token that it showed; empty: none
    rights: frozenset[Right] = PUBLIC_RIGHTS
    models: tuple[str, ...] = ("*",)  # patterns of the names of models that the rights are for
    shown: str = field(default="", compare=False, repr=False)  # the digest of its secret, or its certificate's name
    meter: Meter = field(default_factory=Meter, compare=False, repr=False)  # of its account
    trace: str = ""  # the `traceparent` that its call came with, where calls are traced

    def named(self, who: str) -> "Caller":
        """The same client under the owner's name that it gave."""
        return replace(self, who=who)

    @property
    def account(self) -> str:
        """What limits count by: the token, or without one the address."""
        return f"{TOKEN}{self.token}" if self.token else self.address

    @property
    def owner(self) -> str:
        """The name under which the store counts a sequence: the account, and the name within it."""
        return f"{self.account} {self.who}" if self.who else self.account

    @property
    def whence(self) -> str:
        """What limits count by, in a sentence to the client."""
        return f"with token '{self.token}'" if self.token else "from your address"

    def may(self, right: Right, model: str = "") -> bool:
        """Whether the client has a right, for a model if one is named."""
        has = right in self.rights or (right is Right.OBSERVE and Right.ADMINISTER in self.rights)
        return has and (not model or self._is_for(model))

    def sees(self, model: str) -> bool:
        """Whether a model is listed and described to the client: it has some right for it."""
        return bool(self.rights) and self._is_for(model)

    def require(self, right: Right, model: str = "") -> None:
        """Checks a right, before it is looked up whether there is such a model. Raises PermissionDenied."""
        if not self.may(right, model):
            raise self._denied(f"{right} with model '{model:.60}'" if model else right)

    def require_sight(self, model: str) -> None:
        """Likewise whether a model is described to the client. Raises PermissionDenied."""
        if not self.sees(model):
            raise self._denied(f"see model '{model:.60}'")

    def check_pace(self) -> None:
        """Whether the account may take steps now. Raises OverLimit, which says when."""
        if wait := self.meter.wait():
            rate = self.meter.limits.steps_per_second
            raise OverLimit(f"token '{self.token}' takes {rate:g} steps a second at most", Reason.TOO_FAST, wait)

    def check_message(self, size: int) -> None:
        """Whether the account may send a message of so many bytes. Raises OverLimit."""
        if 0 < (most := self.meter.limits.message_bytes) < size:
            raise OverLimit(f"a message of {size} bytes came; {most} is the limit of token '{self.token}'")

    def _is_for(self, model: str) -> bool:
        name = model.partition("@")[0]  # without an alias
        return any(fnmatchcase(name, pattern) for pattern in self.models)

    def _denied(self, what: str) -> PermissionDenied:
        who = f"token '{self.token}'" if self.token else "a client from this address"
        return PermissionDenied(f"{who} may not {what}")


def account_of(owner: str) -> str:
    """The account within which an owner counts. Stores written before hold bare names, each an account of its own."""
    return owner.partition(" ")[0]
