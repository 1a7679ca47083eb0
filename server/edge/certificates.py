"""The server's certificate and key: read from files, tried, and read anew when the files change. Knows no transport."""

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from server.stamp import Stamp, stamp_of
from tidegate.files import whole

log = logging.getLogger(__name__)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all sound


@dataclass(frozen=True, slots=True)
class Files:
    """Each in PEM form."""

    # the server's certificate, and those between it and one that clients trust
    cert: Path
    # its private key, without a password
    key: Path
    # who issues the certificates that clients must show; None: they need none
    client_ca: Path | None = None

    def stamps(self) -> tuple[Stamp, ...]:
        """Differ once a file was replaced or written."""
        return tuple(stamp_of(path) for path in (self.cert, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True, slots=True)
class Identity:
    """What was in the files at one time, as each transport takes it."""

    context: ssl.SSLContext
    cert: bytes
    key: bytes
    client_ca: bytes | None
    # the names that the certificate is for
    names: tuple[str, ...]
    # its last second, since 1970
    expires: float

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.expires, UTC)
        return f"the certificate of {', '.join(self.names) or 'no name'}, which expires on {until:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class CertificateSample:
    """A moment of it in numbers."""

    # when the certificate expires, in seconds since 1970
    expires: float
    # how often the files had changed and could not be used
    failures: int


class Certificates:
    """What the server shows to new connections; those that are open keep theirs. Raises OSError: a file is no good."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._taken = files.stamps()
        self._doubted: tuple[Stamp, ...] | None = None  # could not be used when it was seen first
        self._failed: tuple[Stamp, ...] | None = None  # nor when it was seen again
        self._failures = 0
        self.current = _read(files)
        log.info("TLS with %s", self.current)

    def look(self) -> None:
        """Reads the files anew if they have changed. May block.

        Files that cannot be used leave everything as it was. They are reported when they are seen so for the second
        time: a certificate is written before or after its key.
        """
        seen = self._files.stamps()
        if seen in (self._taken, self._failed):
            return
        try:
            identity = _read(self._files)
        except OSError as error:
            if seen == self._doubted:
                self._failed = seen
                self._failures += 1
                log.error("%s; still served with %s", error, self.current)  # noqa: TRY400 # the sentence is enough
            self._doubted = seen
            return
        if seen == self._files.stamps():  # else it is read again at the next look
            self.current, self._taken, self._failed = identity, seen, None
            log.info("new connections get %s", identity)

    def sample(self) -> CertificateSample:
        return CertificateSample(self.current.expires, self._failures)


def _read(files: Files) -> Identity:
    """Raises OSError with a sentence."""
    cert, key = _bytes(files.cert), _bytes(files.key)
    client_ca = None if files.client_ca is None else _bytes(files.client_ca)
    context = _context(files)
    shown = _shown(context, files.cert)
    if files.client_ca is not None:
        _require(context, files.client_ca)
    names = tuple(str(value) for _, value in shown.get("subjectAltName", ()))
    return Identity(context, cert, key, client_ca, names, ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _bytes(path: Path) -> bytes:
    try:
        with whole(path) as file:
            return file.read()
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror})") from error


def _context(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET  # a session that goes on would outlive its certificates
    context.num_tickets = 0
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except ssl.SSLError as error:
        why = "the key is not that of the certificate" if "MISMATCH" in str(error) else "they are not in PEM form"
        code = f" ({error.reason})" if error.reason else ""
        raise OSError(f"{files.cert} and {files.key} cannot be used: {why}{code}") from error
    return context


def _no_password() -> NoReturn:
    raise OSError("the key of the certificate has a password; expected one without")


def _require(context: ssl.SSLContext, client_ca: Path) -> None:
    """Clients must show a certificate of these issuers."""
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise OSError(f"{client_ca} holds no certificate in PEM form ({error.reason})") from error
    context.verify_mode = ssl.CERT_REQUIRED


def _shown(context: ssl.SSLContext, cert: Path) -> dict[str, Any]:
    """What a client sees of the certificate, by a handshake in memory. Raises OSError: no client would take it."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is what is trusted
    trusting.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError as error:
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        raise OSError(f"{cert} cannot be used: {why}") from error
    return cast("dict[str, Any]", client.getpeercert())
