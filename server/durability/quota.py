"""How many sequences each owner and each address has here, and whether there may be more. Knows no sequence."""

from collections import Counter

from server.caller import account_of
from server.errors import OverLimit, Reason
from server.settings import Settings


class Quota:
    """An owner's name is given by its client, so an address with all of its owners has a limit too."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()  # by owner and by address

    def count(self, owner: str, change: int) -> None:
        """An owner has so many more, or fewer."""
        for key in {owner, account_of(owner)}:
            self._counts[key] += change
            if not self._counts[key]:
                del self._counts[key]

    def check(self, owner: str, count: int, settings: Settings) -> None:
        """Whether an owner may have so many more. Raises OverLimit."""
        for key, limit in ((owner, settings.max_per_owner), (account_of(owner), settings.max_per_address)):
            if limit and (has := self._counts[key]) + count > limit:
                raise OverLimit(
                    f"'{key}' has {has} sequences open here; {limit} is the limit", Reason.TOO_MANY_OF_OWNER
                )
