"""Which store an address means."""

import os
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

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

        parts = urlsplit(url)
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
        parts = urlsplit(url)
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")
        return "valkey", urlunsplit(place)
    return ("memory", "") if scheme == "memory" else ("none", "")


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
