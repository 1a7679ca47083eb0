"""Makes the caller of a call from what the connection shows: where it comes from, its token, its certificate."""

from dataclasses import dataclass

from server.caller import EVERY_RIGHT, Caller


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call shows of its client."""

    address: str  # its host, without its port
    here: bool = False  # whether it comes from this machine
    token: str = ""  # the secret; empty: none
    subject: str = ""  # the verified subject of its certificate; empty: none


class Authority:
    """Where no tokens are set, everybody may predict, and who comes from this machine may do everything."""

    def caller(self, shown: Credentials) -> Caller:
        """The client. Raises Unauthenticated: what it shows is not known here."""
        if shown.here:
            return Caller(shown.address, rights=EVERY_RIGHT)
        return Caller(shown.address)
