"""Which store an address means."""

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from server.errors import StoreFailed
from server.memory_store import MemoryStore
from server.sqlite_store import SqliteStore
from server.store import Store, Terms
from server.valkey_store import ValkeyStore

REMOTE = ("valkey", "valkeys", "redis", "rediss", "unix")
FORMS = "memory:, sqlite:FILE, valkey://HOST:PORT/DATABASE, valkeys://... (TLS) or unix://SOCKET"


def open_store(url: str, terms: Terms) -> Store:
    """The store at an address.

    Args:
        url: `memory:`, `sqlite:FILE`, or `valkey://USER:PASSWORD@HOST:PORT/DATABASE` (`valkeys://` with TLS,
            `unix://SOCKET`, and as well `redis://`, `rediss://`), where `?prefix=...` is put before all keys, and the
            client library's options may follow, as in `&ssl_ca_certs=FILE`.
        terms: how long things are kept.

    Raises:
        StoreFailed: the address means nothing, or the file is none of ours. A Valkey is only asked with the first call.
    """
    scheme, _, rest = url.partition(":")
    if url == "memory:":
        return MemoryStore(terms)
    if scheme == "sqlite" and rest and not rest.startswith("//"):
        return SqliteStore(Path(rest), terms)
    if scheme in REMOTE and rest.startswith("//"):
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        prefix = options.pop("prefix", "tidegate")
        return ValkeyStore(urlunsplit(parts._replace(query=urlencode(options))), terms, prefix)
    raise StoreFailed(f"{scheme!r} and what follows is no address of a store; expected {FORMS}")
