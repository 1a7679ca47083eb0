"""How many sequences each owner and each account has here, and whether there may be more. Knows no sequence."""

from collections import Counter

from server.caller import account_of
from server.errors import OverLimit, Reason
from server.meter import LimitsOf, unlimited
from server.settings import Settings


class Quota:
    """An owner's name is given by its client, so an account with all of its owners has a limit too."""

    def __init__(self, limits_of: LimitsOf = unlimited) -> None:
        self._limits_of = limits_of
        self._counts: Counter[str] = Counter()  # by owner and by account

    def count(self, owner: str, change: int) -> None:
        """An owner has so many more, or fewer."""
        for key in {owner, account_of(owner)}:
            self._counts[key] += change
            if not self._counts[key]:
                del self._counts[key]

    def check(self, owner: str, count: int, settings: Settings) -> None:
        """Whether an owner may have so many more. Raises OverLimit."""
        account = account_of(owner)
        most = self._limits_of(account).open or settings.max_per_address
        for key, limit in ((owner, settings.max_per_owner), (account, most)):
            if limit and (has := self._counts[key]) + count > limit:
                raise OverLimit(
                    f"{count} more would make {has + count} sequences of '{key}' open here, and {limit} is the limit",
                    Reason.TOO_MANY_OF_OWNER,
                )
