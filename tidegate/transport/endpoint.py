"""The address of a server, how it is connected to, and why a connection to it does not work, in sentences."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from tidegate.transport.calls import CHANNEL_OPTIONS
from tidegate.transport.tls import Tls, spoken_at
from tidegate.transport.token import Token

Options = Iterable[tuple[str, Any]]
File = str | os.PathLike[str]

_HOST_PORT = re.compile(r"(\[[^\[\]\s@]+\]|[^\s:/\[\]@]+):(\d{1,5})")
_GRPC_NAME = re.compile(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds|passthrough):.+")  # gRPC's own kinds of names
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # the first of these that is set, as gRPC has it
_NO_PROXIES = ("no_grpc_proxy", "no_proxy")
_HTTPS = "https://"
_BEFORE = re.compile(r"^failed to connect to all addresses; last error: (\w+: )?(ipv[46]:\S+: )?")  # gRPC's reason


@dataclass(frozen=True, slots=True)
class Proofs:
    """Files in PEM form, and a token: which issuers a client trusts, and how it proves who it is. None: not given."""

    ca: File | None = None
    cert: File | None = None
    key: File | None = None
    token: str | None = field(default=None, repr=False)
    token_file: File | None = None
    insecure: bool = False

    def completed(self, environment: Mapping[str, str]) -> "Proofs":
        """What was not said is taken from the environment."""
        known, found = {name: value for name, value in environment.items() if value}.get, self
        if self.ca is None:
            found = replace(found, ca=known("TIDEGATE_CA"))
        if self.cert is None and self.key is None:
            found = replace(found, cert=known("TIDEGATE_CERT"), key=known("TIDEGATE_KEY"))
        if self.token is None and self.token_file is None:
            file = known("TIDEGATE_TOKEN_FILE")
            found = replace(found, token=None if file else known("TIDEGATE_TOKEN"), token_file=file)
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is reached without gRPC's channel."""

    host: str
    port: int
    authority: str
    tls: Tls | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as a client connects to it: by `credentials` or in clear, perhaps by way of the environment's proxy."""

    address: str
    target: str  # as gRPC takes it
    credentials: grpc.ChannelCredentials | None = None
    tls: Tls | None = None  # that the credentials are made of
    token: Token | None = None
    proxied: bool = True
    bare: bool = True  # no options of gRPC were given

    @classmethod
    def of(
        cls,
        address: str,
        proofs: Proofs,
        credentials: grpc.ChannelCredentials | None,
        options: tuple[tuple[str, Any], ...],
    ) -> "Endpoint":
        """That of a channel with these options. Raises TypeError, ValueError or OSError: something cannot be used."""
        target, tls, token = _target(address), None, None
        files = (proofs.ca, proofs.cert, proofs.key) != (None, None, None)
        if files and credentials is not None:
            raise ValueError("credentials= are instead of ca=, cert= and key=")
        proofs = proofs.completed(os.environ)
        if credentials is None and (files or target != address):
            tls = Tls(*(None if file is None else Path(file) for file in (proofs.ca, proofs.cert, proofs.key)))
            credentials = tls.credentials()
        if proofs.token is not None and proofs.token_file is not None:
            raise ValueError("a token was given twice: as token= and as token_file=")
        if proofs.token is not None or proofs.token_file is not None:
            token = Token(proofs.token, None if proofs.token_file is None else Path(proofs.token_file))
        proxied = dict(options).get("grpc.enable_http_proxy", 1) != 0
        made = cls(address, target, credentials, tls, token, proxied, not options)
        if token is not None and credentials is None and not (proofs.insecure or made._is_here()):
            raise ValueError(
                f"the token would go to {address} unencrypted: connect to https://{address}, or say insecure"
            )
        return made

    def __str__(self) -> str:
        return self.address

    def channel(self, kind: Any, options: Options) -> Any:  # noqa: ANN401 - of `grpc` or of `grpc.aio`
        options = (*CHANNEL_OPTIONS, *options)
        if self.credentials is None:
            return kind.insecure_channel(self.target, options)
        return kind.secure_channel(self.target, self.credentials, options)

    def direct(self) -> Place | None:
        """Where a connection of its own leads to; None: there has to be gRPC's channel, for what it alone knows."""
        place = self._place()
        its_own = self.credentials is not None and (self.tls is None or self.tls.ca is None)  # or its list of issuers
        if place is None or its_own or not self.bare or self._proxy() is not None:
            return None
        return Place(*place, self.target, self.tls)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.token is None else self.token.headers()

    def why_not(self, details: str) -> str:
        secure = self.credentials is not None
        if secure and "WRONG_VERSION_NUMBER" in details:
            return f"the server at {self} does not speak TLS: connect without https:// and credentials"
        details = _BEFORE.sub("", details)
        if (why := self._tls_fault()) is not None:
            return why
        if secure and "CERTIFICATE_VERIFY_FAILED" in details:
            return f"the server at {self} has a certificate that these credentials do not trust ({details})"
        proxy = self._proxy()
        if proxy is not None:
            return f"no Tidegate server answers at {self} by way of {proxy} ({details})"
        place = self._place()
        if not secure and place and "Socket closed" in details and spoken_at(*place):
            return f"the server at {self} speaks TLS: connect to https://{self}"
        return f"no Tidegate server answers at {self} ({details})"

    def _tls_fault(self) -> str | None:
        place = self._place()
        if self.tls is None or place is None or self._proxy() is not None:
            return None
        return self.tls.fault(self.address, *place)

    def _place(self) -> tuple[str, int] | None:
        """Host and port; None: it has another kind of name."""
        found = _HOST_PORT.fullmatch(self.target)
        return None if found is None else (found[1].strip("[]"), int(found[2]))

    def _is_here(self) -> bool:
        """Whether what is sent stays on this machine."""
        place = self._place()
        if place is None or self._proxy() is not None:
            return self.target.startswith("unix")
        try:
            return place[0] == "localhost" or ip_address(place[0]).is_loopback
        except ValueError:  # another name
            return False

    def _proxy(self) -> str | None:
        """The proxy between, and how to leave it out; without its password."""
        name = next((name for name in _PROXIES if os.environ.get(name)), None)
        place = self._place()
        if not self.proxied or name is None or place is None:
            return None
        host = place[0]
        others = next(filter(None, map(os.environ.get, _NO_PROXIES)), "")
        if any(host.endswith(other.strip()) for other in others.split(",") if other.strip()):
            return None
        between = urlsplit(os.environ[name])
        return f"the proxy {between.netloc.rpartition('@')[2]} of {name}; no_proxy={host} leaves it out"


def _target(address: object) -> str:
    """An address as gRPC takes it: the same, or of https://HOST[:PORT] its HOST:PORT. Raises TypeError, ValueError."""
    wanted = "HOST:PORT or https://HOST:PORT was expected, like 'localhost:50051'"
    if not isinstance(address, str):
        raise TypeError(f"the address {address!r} is no text: {wanted}")
    target = address
    if address.startswith(_HTTPS):
        target = address.removeprefix(_HTTPS).removesuffix("/")
        target += "" if re.search(r":\d+\Z", target) else ":443"
    found = _HOST_PORT.fullmatch(target)
    if not (_GRPC_NAME.fullmatch(address) or (found is not None and int(found[2]) <= 65_535)):
        shown = re.sub(r"//.*@", "//...@", address)  # a secret, perhaps
        raise ValueError(f"the address {shown!r} {_mistake(address)}: {wanted}")
    return target


def _mistake(address: str) -> str:
    if re.fullmatch(r"[^\s:/\[\]]+", address):
        return "names no port"
    if address.startswith("http://"):
        return "begins with http://, which must be left out"
    if re.fullmatch(r"(https://)?[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", address):
        return "is IPv6, which stands in brackets, like '[::1]:50051'"
    return "is not valid"
