"""A store in Valkey or Redis, for many replicas: `Store`'s calls as pipelines of one script, `store.lua`.

All keys are in one hash slot, and no redirection is followed: one primary with its replicas, not a cluster over which
the data would spread. Its memory is the limit, and `maxmemory-policy` has to be `noeviction`. What was kept survives a
crash of Valkey itself as far as its `appendonly` and `appendfsync` say.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from itertools import chain
from itertools import count as counting
from pathlib import Path
from secrets import token_hex
from typing import Any

from valkey import Valkey
from valkey import exceptions as of_valkey
from valkey.backoff import NoBackoff
from valkey.retry import Retry

from server.errors import StoreFailed
from server.stores.eviction import RANKED, parts
from server.stores.observed_time import ObservedTime
from server.stores.records import Outcome, Page, Record
from server.stores.store import Claim, Claimed, End, Evicted, Gone, Hold, Refused, Swept, Usage, Write
from server.stores.terms import Terms
from server.stores.valkey import items
from server.stores.valkey.items import BATCH, Item

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_suffix(".lua").read_bytes()
NAME = sha1(SCRIPT, usedforsecurity=False).hexdigest()

OF_SEQUENCE, OF_TOMBSTONE = 1_024, 640  # bytes of memory that one takes beside its checkpoints, about
REFUSALS = (
    of_valkey.AuthenticationError,
    of_valkey.NoPermissionError,
    of_valkey.ReadOnlyError,
    of_valkey.OutOfMemoryError,
    of_valkey.MovedError,
    of_valkey.BusyLoadingError,
)


class Scan:
    """Where a SCAN is, and a hash of each id that it has found."""

    def __init__(self) -> None:
        self.at = 0
        self._found = set[int]()

    def new(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those that it had not found before."""
        new = [id_ for id_ in dict.fromkeys(ids) if hash(id_) not in self._found]
        self._found.update(map(hash, new))
        return new


class ValkeyStore:
    """See `Store`. Connects with the first call, and again after a failure.

    `url` is as in `open_store`. The hash tag of the `prefix` of all keys, the part in braces, is added where there is
    none. `patience`: so long the server may take to accept a connection, and to answer, in seconds.

    Raises StoreFailed: the url cannot be understood.
    """

    def __init__(self, url: str, terms: Terms, prefix: str = "tidegate", patience: float = 5.0) -> None:
        self.terms = terms
        self._writer, self._calls = token_hex(8), counting(1)
        self._reached = False
        self._time = ObservedTime(terms.gap)
        self._kept, self._losses = 0, 0  # the last call that Valkey said it has kept, and how often it forgot one
        self._prefix = f"{prefix}:" if "{" in prefix else f"{{{prefix}}}:"
        once_more = Retry(NoBackoff(), 1, (of_valkey.ConnectionError,))  # a connection that was closed while idle
        try:
            self._client = Valkey.from_url(
                url, socket_timeout=patience, socket_connect_timeout=patience, retry=once_more
            )
            connection = self._client.connection_pool.make_connection()
        except (ValueError, TypeError) as error:
            raise StoreFailed(f"the address of the store cannot be understood: {error}") from error
        self._name = " ".join(f"{key}={value}" for key, value in connection.repr_pieces())  # no password among them

    def write(self, writes: Sequence[Write], now: float) -> list[Refused]:
        return items.refused(writes, self._each("write", now, [items.written(write) for write in writes]))

    def claim(self, claims: Sequence[Claim], now: float, asked: float | None = None) -> list[int | Gone]:
        """See `Store.claim`. It looks first: if it is delayed on its way, it does not undo a later claim.

        One run takes all, however many.
        """
        asked_at = int((now if asked is None else asked) * 1_000)
        fences = chain.from_iterable(self._each("fences", now, [(claim.id,) for claim in claims]))
        asking = [(claim.id, claim.digest, fence, asked_at) for claim, fence in zip(claims, fences, strict=True)]
        (taken,) = self._change([self._command("claim", now, self._time.proposed(now), asking)])
        return [items.taken(*answer) for answer in taken]

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        answers = self._each("read", now, [(claim.id, claim.digest) for claim in claims])
        return [items.claimed(*found) for answer in answers for found in answer]

    def hold(self, holds: Sequence[Hold], now: float) -> list[Refused]:
        return items.refused(holds, self._each("hold", now, [(hold.id, hold.fence, int(hold.awake)) for hold in holds]))

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        return items.refused(ends, self._each("end", now, [(end.id, end.fence, end.reason) for end in ends]))

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        expired: list[bytes] = []
        owners: list[bytes] = []
        more = True
        for left in range(limit, 0, -BATCH):
            if more:
                ((more, ids, lapsed),) = self._each("expire", now, [(min(BATCH, left),)])
                expired, owners = expired + ids, owners + lapsed
        return Swept(tuple(id_.decode() for id_ in expired), bool(more), frozenset(o.decode() for o in owners))

    def evict(self, count: int, now: float, *, owner: str | None = None) -> list[Evicted]:
        if count <= 0:
            return []
        of = {f"owner:{owner}": count} if owner is not None else self._shares(count)
        found = self._run([("ZRANGE", self._prefix + key, 0, part - 1, "WITHSCORES") for key, part in of.items()])
        answers = self._each("evict", now, [item for some in found for item in zip(some[::2], some[1::2], strict=True)])
        return [items.evicted(*found) for answer in answers for found in answer]

    def _shares(self, count: int) -> dict[str, int]:
        """From which sorted sets how many give way."""
        of = parts(self._ranked("addresses"), lambda address: self._ranked(f"owners:{address}"), count)
        return {"touched": count} if of is None else {f"owner:{owner}": part for owner, part in of.items()}

    def _ranked(self, key: str) -> list[tuple[str, int]]:
        (found,) = self._run([("ZREVRANGE", self._prefix + key, 0, RANKED - 1, "WITHSCORES")])
        return [(name.decode(), int(parked)) for name, parked in zip(found[::2], found[1::2], strict=True)]

    def forget(self, count: int, now: float) -> int:
        return sum(self._each("forget", now, [(min(BATCH, left),) for left in range(count, 0, -BATCH)], 1))

    def page(self, cursor: object | None, limit: int, now: float) -> Page:
        """See `Store.page`. What SCAN finds is read by the script, each sequence at one moment.

        While keys come and go SCAN gives some of them twice.
        """
        scan = cursor if isinstance(cursor, Scan) else Scan()
        pattern = re.sub(r"([\[\]*?\\])", r"\\\1", self._prefix) + "sequence:*"
        ((following, keys),) = self._run([("SCAN", scan.at, "MATCH", pattern, "COUNT", limit)])
        new = scan.new(key[len(self._prefix) + len("sequence:") :] for key in keys)
        scan.at = int(following)
        return Page(self.records(new, now), scan if scan.at else None)

    def records(self, ids: Collection[str | bytes], now: float) -> tuple[Record, ...]:
        found = [one for answer in self._each("page", now, [(id_,) for id_ in ids]) for one in answer]
        return tuple(items.record(self._time.last, *one) for one in found)

    def put(self, records: Sequence[Record], now: float) -> list[Outcome]:
        answers = self._each("put", now, [items.put(record) for record in records], 16)
        return [Outcome(one.decode()) for answer in answers for one in answer]

    def usage(self, owner: str | None = None) -> Usage:
        asked: Sequence[tuple[str, ...]] = (
            ("ZCARD", "touched"),
            ("ZCARD", "awake"),
            ("GET", "total"),
            ("ZCARD", "tombstones"),
        )
        if owner is not None:
            held = ("HGET", "awake_of", owner), ("HGET", "bytes", owner)
            asked = ("ZCARD", f"owner:{owner}"), *held, ("ZCARD", f"tombstones:{owner}")
        found = self._run([(command, self._prefix + key, *field) for command, key, *field in asked])
        parked, awake, size, tombstones = (int(number or 0) for number in found)
        taken = size + OF_SEQUENCE * (parked + awake) + OF_TOMBSTONE * tombstones
        return Usage(parked + awake, size, parked, tombstones, taken)

    def parked_by(self, account: str) -> Sequence[tuple[str, int]]:
        return self._ranked(f"owners:{account}")

    def shrink(self) -> bool:
        return False  # Valkey's allocator does

    def losses(self) -> int:
        """See `Store.losses`: Valkey was emptied, or has come back without what it kept last."""
        (number,) = self._run([("GET", f"{self._prefix}writer:{self._writer}")])
        self._compare(number)
        return self._losses

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call] # valkey types its commands alone

    def _each(self, verb: str, now: float, items: Sequence[Item], size: int = BATCH) -> list[Any]:
        """Runs the script on all items, a batch at a time. Returns its answers, one for each batch."""
        batches = (items[at : at + size] for at in range(0, len(items), size))
        proposed = self._time.proposed(now)
        return self._change([self._command(verb, now, proposed, batch) for batch in batches])

    def _change(self, commands: Sequence[Item]) -> list[Any]:
        """Runs scripts; from the number of the call before each is seen whether data was lost."""
        found = self._run(commands)
        for before, after, time, damaged, _ in found:
            self._compare(before)
            self._kept = int(after)
            self._time.settle(float(time))
            for id_ in damaged:
                log.error("sequence %r in the store is damaged, and is set aside under `damaged:`", id_)
        return [answer for *_, answer in found]

    def _compare(self, number: bytes | None) -> None:
        if int(number or 0) < self._kept:
            self._losses += 1
            self._kept = int(number or 0)

    def _command(self, verb: str, now: float, proposed: float | None, items: Sequence[Item]) -> Item:
        terms, time = self.terms, "" if proposed is None else repr(proposed)
        times = map(repr, (terms.retention, terms.lease, terms.tombstone))
        given: Item = (verb, self._writer, next(self._calls), repr(now), time, *times, terms.tombstones, terms.keep)
        return ("EVALSHA", NAME, 1, self._prefix + "touched", *given, *chain.from_iterable(items))

    def _run(self, commands: Sequence[Item]) -> list[Any]:
        """Sends all commands at once. The script is sent along the first time, and once Valkey has forgotten it."""
        self._reach()
        with self._sentences():
            answers = self._answers(commands)
            if any(isinstance(answer, of_valkey.NoScriptError) for answer in answers):
                self._client.script_load(SCRIPT)
                answers = self._answers(commands)
            failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            definite = len(failed) == len(answers) and all(map(_is_refusal, failed))
            raise self._failed(failed[0], definite=definite) from failed[0]
        return answers

    def _reach(self) -> None:
        """Connects where there is no connection: what fails before that was never sent."""
        if not self._reached:
            with self._sentences(definite=True):
                pool = self._client.connection_pool
                pool.release(pool.get_connection("PING"))
            self._reached = True

    def _answers(self, commands: Sequence[Item]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call] # valkey types its commands alone
        answers: list[Any] = pipeline.execute(raise_on_error=False)  # type: ignore[no-untyped-call] # likewise
        return answers

    @contextmanager
    def _sentences(self, *, definite: bool = False) -> Iterator[None]:
        try:
            yield
        except (of_valkey.ValkeyError, OSError) as error:
            raise self._failed(error, definite=definite) from error

    def _failed(self, error: Exception, *, definite: bool) -> StoreFailed:
        self._client.connection_pool.disconnect()  # the next call may find another primary behind the address
        self._reached = False
        return StoreFailed(f"the store at {self._name} {_says(error)}", definite=definite)


def _is_refusal(error: Exception) -> bool:
    """Whether Valkey says that it did not begin; of a script, that its first change was refused."""
    return isinstance(error, REFUSALS) or any(f"-{word} " in str(error) for word in ("READONLY", "OOM"))


def _says(error: Exception) -> str:
    text = str(error)  # Redis 6 tells what a script ran into in its text alone
    match error:
        case of_valkey.AuthenticationError() | of_valkey.NoPermissionError():
            return f"does not let us in: {error}"
        case of_valkey.TimeoutError():
            return f"does not answer in time: {error}"
        case of_valkey.ResponseError() if text.startswith(("MOVED", "ASK", "CLUSTERDOWN")):
            return "is a node of a cluster, and not the one with our keys; expected one primary"
        case of_valkey.ResponseError() if isinstance(error, of_valkey.ReadOnlyError) or " -READONLY" in text:
            return "is a replica, which takes no writes"
        case of_valkey.ResponseError() if isinstance(error, of_valkey.OutOfMemoryError) or " -OOM" in text:
            return "takes no writes: its memory is full"
        case of_valkey.ConnectionError() | OSError():
            return f"cannot be reached: {error}"
    return f"fails: {error}"
