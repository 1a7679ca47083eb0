"""What a client trusts and shows in TLS, and why a server is not reached by it, in sentences."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

_PATIENCE = 0.5  # seconds that a server may take to answer: it answered before, in a way that gRPC could not use
_SHOWS_NOTHING = {"CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE"}  # a server's alerts, of TLS 1.3 and 1.2


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form: whose certificates are trusted (None: gRPC's own list), and the client's own with its key."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert= and key= belong together: one of them was not given")

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ValueError or OSError: a file cannot be used."""
        ca, cert, key = (None if path is None else path.read_bytes() for path in (self.ca, self.cert, self.key))
        self._context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return grpc.ssl_channel_credentials(ca, key, cert)

    def context(self) -> ssl.SSLContext:
        """For HTTP/2. Raises ValueError or OSError: a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self.ca else ssl.create_default_context()
        self._context(context).set_alpn_protocols(["h2"])
        return context

    def fault(self, server: str, host: str, port: int) -> str | None:
        """What is wrong between this client and a server, found by another handshake; None: nothing that TLS knows."""
        try:
            context = self.context()
            with (
                socket.create_connection((host, port), _PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname=host) as tls,
            ):
                if tls.recv(1):
                    return None
        except ssl.SSLCertVerificationError as error:
            return _distrusted(error, server, host)
        except ssl.SSLError as error:
            return self._refused(error.reason or "", server)
        except ConnectionResetError:
            pass
        except (OSError, ValueError):
            return None
        return self._refused("CERTIFICATE_REQUIRED", server)

    def _context(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password="")
        except ssl.SSLError as error:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)
            raise ValueError(f"{files} cannot be used: {_unusable(error)}") from error
        return context

    def _refused(self, reason: str, server: str) -> str | None:
        """What an alert of the server says, or that it has closed the connection after the handshake."""
        word = reason.rpartition("ALERT_")[2]
        if self.cert is None and word in _SHOWS_NOTHING:
            return f"the server at {server} asks clients for a certificate: connect with cert= and key="
        if self.cert is not None and (word in _SHOWS_NOTHING or "ALERT" in reason):
            return f"the server at {server} does not accept the certificate {self.cert} ({word.lower()})"
        return None


def spoken_at(host: str, port: int) -> bool:
    """Whether a server answers in TLS, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said to it
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host, port), _PATIENCE) as plain:
            _shake_hands(plain, context)
    except ssl.SSLError as error:  # it wants a certificate of ours, say: that, too, is TLS
        return "WRONG_VERSION_NUMBER" not in str(error) and "EOF" not in str(error)
    except OSError:
        return False
    return True


def _shake_hands(plain: socket.socket, context: ssl.SSLContext) -> None:
    """Over buffers: ssl's own kind of socket stays open where the other side has reset the connection already."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            return secure.do_handshake()
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            if data := plain.recv(2**14):
                incoming.write(data)
            else:
                incoming.write_eof()


def _unusable(error: ssl.SSLError) -> str:
    if "MISMATCH" in str(error):
        return "the key is not that of the certificate"
    return f"expected certificates and a key without a password, in PEM form ({error.reason})"


def _distrusted(error: ssl.SSLCertVerificationError, server: str, host: str) -> str:
    whose = f"the certificate of the server at {server}"
    if "expired" in error.verify_message:
        return f"{whose} has expired"
    if "mismatch" in error.verify_message:
        return f"{whose} is not for the name {host}: connect by a name that it is for"
    return f"{whose} is not from an issuer that is trusted here: give its issuer with ca= ({error.verify_message})"
