"""How many bytes may wait for a stream, in each direction; the streams of one address share a limit."""

from dataclasses import dataclass

from server.contexts import Held

_LEAST = 2**16  # bytes
_ADDRESSES = 4


@dataclass(slots=True, eq=False)
class Allowance:
    """How many bytes may wait for a stream. Changes with the number of streams of its address, which share it."""

    size: int  # bytes
    streams: int = 1  # that share it
    address: str = ""


class Allowances:
    """The allowances of all addresses: together they have `_ADDRESSES` times what one may have, in equal parts.

    Args:
        stream: the most bytes of one stream.
        address: the most bytes of all streams of one address together; each stream may have 64 KiB in any case.
    """

    def __init__(self, stream: int, address: int) -> None:
        self._stream = stream
        self._address = address
        self._of: dict[str, Allowance] = {}
        self._fair = address  # what one address may have for the sake of the others

    @property
    def accounts(self) -> int:
        """How many have streams."""
        return len(self._of)

    def one(self, address: str) -> Held[Allowance]:
        """The allowance of one more stream of an address, while it is served."""
        allowance = self._of.setdefault(address, Allowance(self._stream, 0, address))
        self._change(allowance, 1)
        return Held(self, allowance)

    def give_back(self, allowance: Allowance) -> None:
        """See Lender."""
        if allowance.streams == 1:
            del self._of[allowance.address]
        self._change(allowance, -1)

    def _change(self, allowance: Allowance, by: int) -> None:
        allowance.streams += by
        before, self._fair = self._fair, min(self._address, _ADDRESSES * self._address // max(1, len(self._of)))
        for each in (allowance,) if self._fair == before else self._of.values():
            each.size = min(self._stream, max(_LEAST, self._fair // max(1, each.streams)))
