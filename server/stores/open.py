"""Which store an address means."""

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from server.errors import StoreFailed
from server.stores.memory import MemoryStore
from server.stores.sqlite.store import SqliteStore
from server.stores.store import Store
from server.stores.terms import Terms

REMOTE = ("valkey", "valkeys", "redis", "rediss", "unix")
FORMS = "memory:, sqlite:FILE, valkey://HOST:PORT/DATABASE, valkeys://... (TLS) or unix://SOCKET"


def open_store(url: str, terms: Terms) -> Store:
    """The store at an address.

    Args:
        url: `memory:`, `sqlite:FILE` (`sqlite:` alone is a file in the user's state folder), or
            `valkey://USER:PASSWORD@HOST:PORT/DATABASE` (`valkeys://` with TLS, `unix://SOCKET`, and as well
            `redis://`, `rediss://`), where `?prefix=...` is put before all keys, and the client library's options may
            follow, as in `&ssl_ca_certs=FILE`.
        terms: how long things are kept.

    Raises:
        StoreFailed: the address means nothing, or the file is none of ours. A Valkey is only asked with the first call.
    """
    scheme, _, rest = url.partition(":")
    if url == "memory:":
        return MemoryStore(terms)
    if (file := file_of(url)) is not None:
        return SqliteStore(file, terms)
    if scheme in REMOTE and rest.startswith("//"):
        from server.stores.valkey.store import ValkeyStore  # noqa: PLC0415 - a tenth of a server's start

        parts = _checked(url)
        options = dict(parse_qsl(parts.query))
        prefix = options.pop("prefix", "tidegate")
        return ValkeyStore(urlunsplit(parts._replace(query=urlencode(options))), terms, prefix)
    raise StoreFailed(f"{scheme!r} and what follows is no address of a store; expected {FORMS}")


def described(url: str) -> tuple[str, str]:
    """The kind of a store, and where it is, without a user or a password."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return scheme, rest or str(_usual())
    if scheme in REMOTE:
        return "valkey", without_password(url).partition("?")[0]
    return ("memory", "") if scheme == "memory" else ("none", "")


def without_password(url: str) -> str:
    """An address without what stands before its last @, wherever that is: a password may hold any character."""
    scheme, there, rest = url.partition("://")
    return f"{scheme}{there}{rest.rpartition('@')[2]}"


def _checked(url: str) -> SplitResult:
    """The parts of a Valkey's address; what stands in them is not said, for it may be of a password.

    Raises StoreFailed: a character of a password ends it too early, or the library would pass over a part.
    """
    why, parts = "", urlsplit("")
    try:
        parts = urlsplit(url)
        whole = "@" not in f"{parts.path}{parts.query}" and "#" not in url and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        why = "expected a port up to 65535, and / ? # @ [ ] in a password as %2F %3F %23 %40 %5B %5D"
    elif parts.scheme != "unix" and not re.fullmatch("/?[0-9]*", parts.path):
        why = "expected a whole number as its database"
    if why:
        raise StoreFailed(f"the address of the store cannot be understood: {why}")
    return parts


def file_of(url: str) -> Path | None:
    """The file of a store that is one. Raises StoreFailed: there is no folder for it."""
    scheme, _, rest = url.partition(":")
    return (Path(rest) if rest else _usual()) if scheme == "sqlite" and not rest.startswith("//") else None


def _usual() -> Path:
    """Where a service of this user keeps what has to outlive it (XDG Base Directory Specification)."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tidegate"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFailed(f"no folder for checkpoints can be made ({error}); name a file with --store") from error
    return folder / "sequences.sqlite"
