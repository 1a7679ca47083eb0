"""The address of a server, and why a connection to it does not work, in sentences."""

import os
import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_HOST_PORT = re.compile(r"(\[[^\[\]\s]+\]|[^\s:/\[\]]+):(\d{1,5})")
_GRPC_NAME = re.compile(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds|passthrough):.+")  # gRPC's own kinds of names
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # the first of these that is set, as gRPC has it
_NO_PROXIES = ("no_grpc_proxy", "no_proxy")
_PATIENCE = 0.5  # seconds that a port may take to answer in TLS: it answered before, by closing the connection


def _check(address: object) -> None:
    wanted = "HOST:PORT was expected, like 'localhost:50051'"
    if not isinstance(address, str):
        raise TypeError(f"the address {address!r} is no text: {wanted}")
    found = _HOST_PORT.fullmatch(address)
    if not _GRPC_NAME.fullmatch(address) and (found is None or int(found[2]) > 65535):
        what = "names no port" if re.fullmatch(r"[^\s:/\[\]]+", address) else "is none"
        raise ValueError(f"the address {address!r} {what}: {wanted}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """HOST:PORT, whether it is spoken to in TLS, and whether by way of the environment's proxy."""

    address: str
    secure: bool = False
    proxied: bool = True

    @classmethod
    def of(cls, address: str, secure: bool, options: Iterable[tuple[str, Any]]) -> "Endpoint":
        """That of a channel with these options. Raises TypeError or ValueError for what can be no address."""
        _check(address)
        return cls(address, secure, dict(options).get("grpc.enable_http_proxy", 1) != 0)

    def __str__(self) -> str:
        return self.address

    def why_not(self, details: str) -> str:
        if self.secure and "WRONG_VERSION_NUMBER" in details:
            return f"the server at {self} does not speak TLS: connect without credentials ({details})"
        if self.secure and "CERTIFICATE_VERIFY_FAILED" in details:
            return f"the server at {self} has a certificate that these credentials do not trust ({details})"
        proxy = self._proxy()
        if proxy is not None:
            return f"no Tidegate server answers at {self} by way of {proxy} ({details})"
        if not self.secure and "failed to connect" in details and "Socket closed" in details and self._speaks_tls():
            return f"the server at {self} speaks TLS: connect with credentials=grpc.ssl_channel_credentials(...)"
        return f"no Tidegate server answers at {self} ({details})"

    def _proxy(self) -> str | None:
        """The proxy between, and how to leave it out; without its password."""
        name = next((name for name in _PROXIES if os.environ.get(name)), None)
        if not self.proxied or name is None or (found := _HOST_PORT.fullmatch(self.address)) is None:
            return None
        host = found[1].strip("[]")
        others = next(filter(None, map(os.environ.get, _NO_PROXIES)), "")
        if any(host.endswith(other.strip()) for other in others.split(",") if other.strip()):
            return None
        between = urlsplit(os.environ[name])
        return f"the proxy {between.netloc.rpartition('@')[2]} of {name}; no_proxy={host} leaves it out"

    def _speaks_tls(self) -> bool:
        found = _HOST_PORT.fullmatch(self.address)
        if found is None:
            return False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said to it
        context.set_alpn_protocols(["h2"])
        try:
            with socket.create_connection((found[1].strip("[]"), int(found[2])), _PATIENCE) as plain:
                context.wrap_socket(plain).close()
        except ssl.SSLError as error:  # it wants a certificate of ours, say: that, too, is TLS
            return "WRONG_VERSION_NUMBER" not in str(error) and "EOF" not in str(error)
        except OSError:
            return False
        return True
