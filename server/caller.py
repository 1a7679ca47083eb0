"""Which client asks: a value that the edge makes for each stream or call, and that opening, resuming and limits get."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Caller:
    """A client as the limits see it.

    The name that a client gives is a label, not a proof: limits count it within the client's own address, so that no
    client uses up what belongs to others by taking their name.
    """

    address: str = ""  # the client's host, without its port
    who: str = ""  # the owner's name that it gave; empty: none

    def named(self, who: str) -> "Caller":
        """The same client under the owner's name that it gave."""
        return replace(self, who=who)

    @property
    def owner(self) -> str:
        """The name under which the store counts a sequence: the address, and the name within it."""
        return f"{self.address} {self.who}" if self.who else self.address


def address_of(owner: str) -> str:
    """The address within which an owner counts. Stores written before hold bare names, each an address of its own."""
    return owner.partition(" ")[0]
