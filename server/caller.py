"""Who asks: a value made once at the edge for a stream or a call, and passed down to opening, resuming and limits."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Caller:
    """A client as the limits see it.

    A name that a client gives is a label, not a proof: it counts within the client's own address alone, so that nobody
    uses up, or pushes out, what belongs to others by taking their name.
    """

    address: str = ""  # the client's host, without its port
    who: str = ""  # the owner's name that it gave; empty: none
    rights: frozenset[str] = frozenset()  # what a token allows; without tokens nothing asks for any

    def named(self, who: str) -> "Caller":
        """The same client under the owner's name that it gave."""
        return replace(self, who=who)

    @property
    def owner(self) -> str:
        """Whom the store counts a sequence for: the address, and the name within it."""
        return f"{self.address} {self.who}" if self.who else self.address


def address_of(owner: str) -> str:
    """The address within which an owner counts. Stores written before hold bare names, each an address of its own."""
    return owner.partition(" ")[0]
