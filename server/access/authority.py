"""Makes the caller of a call from what the connection shows: where it comes from, its token, its certificate."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from weakref import WeakValueDictionary

from server.access import token_secret
from server.access.guesses import Guesses
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import EVERY_RIGHT, PUBLIC_RIGHTS, TOKEN, Caller, Right
from server.contexts import Held
from server.errors import Draining, TidegateError, Unauthenticated
from server.meter import NO_LIMITS, Limits, Meter
from server.stamp import GONE, stamp_of

log = logging.getLogger(__name__)

_PREFIX = 4  # hexadecimal digits of a digest by which those to compare are found


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call shows of its client."""

    address: str  # its host, without its port
    here: bool = False  # whether it comes from this machine
    secret: str = field(default="", repr=False)  # of its token; empty: none
    subject: str = ""  # the common name in its verified certificate; empty: none


class Authority:
    """Knows the tokens of a file, which it reads anew once it has changed.

    Without a file every client may predict, and clients of this machine may do everything.

    Args:
        file: of tokens; None: there are none.
        clock: seconds since 1970.
        monotonic: seconds.

    Raises OSError: the file cannot be used.
    """

    def __init__(
        self,
        file: TokenFile | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._clock = clock
        self._monotonic = monotonic
        self._guesses = Guesses()
        self._meters: dict[str, Meter] = {}  # of tokens, by account
        self._public: WeakValueDictionary[str, Meter] = WeakValueDictionary()  # of addresses that have calls
        self._present: dict[Callable[[TidegateError], None], Caller] = {}
        self._stamp = GONE
        self._fault = ""  # why the file cannot be read now
        self._tokens: Mapping[str, Token] = {}
        self._by_digest: dict[str, list[tuple[str, Token]]] = {}
        self._by_certificate: dict[str, Token] = {}
        if file is not None:
            self._stamp = stamp_of(file.path)
            self._take(file.read())

    # Who asks ---------------------------------------------------------------------------------------------------------

    def caller(self, shown: Credentials) -> Caller:
        """The client. Raises Unauthenticated: what it shows is not known here."""
        if self._file is None:
            rights = EVERY_RIGHT if shown.here else PUBLIC_RIGHTS
            meter = self._public.setdefault(shown.address, Meter())
            return Caller(shown.address, rights=rights, meter=meter)
        if not shown.secret and not shown.subject:
            other = ", or for a certificate whose common name stands for one" if self._by_certificate else ""
            raise Unauthenticated(f"this server asks for a token, which comes as `authorization: Bearer tg_...`{other}")
        token = self._found(shown)
        if token is None and not self._fault and self._changed():  # it may be as new as the question
            self._end_withdrawn()
            token = self._found(shown)
        if token is None:
            raise self._unknown(shown)
        evidence = token_secret.digest(shown.secret) if shown.secret else shown.subject
        meter = self._meters[f"{TOKEN}{token.name}"]
        return Caller(shown.address, "", token.name, token.rights, token.models, evidence, meter)

    def _found(self, shown: Credentials) -> Token | None:
        """The token that a secret is of, else the one that stands for a certificate.

        How long it takes depends on the first digits of a secret's digest alone, which cannot be chosen without
        knowing the secret's own: neither names of tokens nor secrets are compared.
        """
        token = self._by_certificate.get(shown.subject)
        if shown.secret:
            token, digest = None, token_secret.digest(shown.secret)
            for kept, one in self._by_digest.get(digest[:_PREFIX], ()):
                if compare_digest(kept, digest):
                    token = one
        return token if token is not None and self._clock() < token.expires else None

    def _unknown(self, shown: Credentials) -> Unauthenticated:
        wait = self._guesses.wrong(shown.address, self._monotonic())
        log.warning("what is no token here came from %s", shown.address)  # the log's filter drops repetitions
        what = "the token is not known here, or not any more" if shown.secret else "the certificate stands for no token"
        if shown.secret and not token_secret.well_formed(shown.secret):
            what = "what came as a token is none: it is cut short, or mistyped"
        return Unauthenticated(what, delay=wait)

    def limits_of(self, account: str) -> Limits:
        """What an account may have, as the file says now."""
        token = self._tokens.get(account.removeprefix(TOKEN)) if account.startswith(TOKEN) else None
        return NO_LIMITS if token is None else token.limits

    def allows(self, account: str, model: str) -> bool:
        """Whether an account may predict with a model, as the file says now."""
        if self._file is None:
            return True
        token = self._tokens.get(account.removeprefix(TOKEN))
        if token is None or self._clock() >= token.expires:
            return False
        return Caller(rights=token.rights, models=token.models).may(Right.PREDICT, model)

    # What changes -----------------------------------------------------------------------------------------------------

    def watching(self, caller: Caller, end: Callable[[TidegateError], None]) -> Held[Callable[[TidegateError], None]]:
        """During the block `end`, one of its own, is called once the caller's token does not hold any more."""
        self._present[end] = caller
        return Held(self, end)

    def give_back(self, end: Callable[[TidegateError], None]) -> None:
        """See Lender."""
        del self._present[end]

    def refresh(self) -> bool:
        """Reads the file if it has changed; a broken one changes nothing. Ends the streams of tokens that are gone."""
        changed = self._changed()
        self._end_withdrawn()  # some expire
        return changed

    def _changed(self) -> bool:
        return self._file is not None and self._read_anew(self._file)

    def _end_withdrawn(self) -> None:
        for end, caller in list(self._present.items()):
            if (error := self.withdrawn(caller)) is not None:
                end(error)

    def _read_anew(self, file: TokenFile) -> bool:
        stamp = stamp_of(file.path)
        if stamp == self._stamp and not self._fault:
            return False
        try:
            tokens = file.read()
        except OSError as error:
            if str(error) != self._fault:
                log.error("%s; the tokens of before go on", error)  # noqa: TRY400 # its sentence says all
            self._fault = str(error)
            return False
        self._stamp, self._fault = stamp, ""
        if tokens == self._tokens:
            return False
        self._take(tokens)
        log.info("read %d tokens", len(tokens))
        return True

    def _take(self, tokens: Mapping[str, Token]) -> None:
        self._tokens = tokens
        self._by_digest = {}
        for token in tokens.values():
            for digest in token.digests:
                self._by_digest.setdefault(digest[:_PREFIX], []).append((digest, token))
        self._by_certificate = {token.certificate: token for token in tokens.values() if token.certificate}
        for token in tokens.values():
            meter = self._meters.setdefault(f"{TOKEN}{token.name}", Meter(clock=self._monotonic))
            meter.limits = token.limits

    def withdrawn(self, caller: Caller) -> TidegateError | None:
        """Why a stream that was begun with a token ends; what it may is asked for once, so a change ends it too."""
        if self._file is None:
            return None
        token = self._tokens.get(caller.token)
        if token is None or self._clock() >= token.expires:
            return Unauthenticated(f"token '{caller.token}' {'was removed' if token is None else 'has expired'}")
        if caller.shown not in (*token.digests, token.certificate):
            return Unauthenticated(f"this secret or certificate of token '{caller.token}' does not hold any more")
        if (token.rights, token.models) != (caller.rights, caller.models):
            return Draining(f"what token '{caller.token}' may do was changed: connect again")
        return None
