"""`python -m server store move FROM TO`, `check STORE`, `backup STORE FILE`, `restore STORE FILE`: without a server.

For stores whose servers are stopped; `tidegate store` does the same through a running one.
Exit status: 0 done, 1 a store fails, or something is wrong with it, 2 wrong usage.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from server import options
from server.durability.upkeep.backup import Reader, Writer
from server.durability.upkeep.upkeep import Census, compare, count
from server.errors import BadInput, StoreDamaged, StoreFailed
from server.stores.open import described, file_of, open_store
from server.stores.records import Outcome, Record
from server.stores.store import Store
from server.stores.terms import Terms
from tidegate.admin import words
from tidegate.drawing.names import printable
from tidegate.files import replacing
from tidegate.progress import Progress

_PROG = "python -m server store"
_MOST = 64  # records at a time
_GAP = 100_000  # sequences that are found by one page of a SQLite file, at most
_PIECE = 2**23  # bytes of a file at a time: a transaction of some thousand records

_HELP = {
    "move": (
        "FROM",
        "TO",
        "copies what a store has, if it is damaged what is whole, into another; what is newer there stays",
    ),
    "check": ("STORE", "", "reads every checkpoint"),
    "backup": ("STORE", "FILE", "writes all that a store has to a file"),
    "restore": ("STORE", "FILE", "puts what a backup holds into a store; what is there and newer stays"),
}


def main(arguments: Sequence[str]) -> int:
    parser = options.Parser(
        prog=_PROG,
        description="Looks after a store while no server runs on it; `tidegate store` does so through a running one.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (first, second, text) in _HELP.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("store", metavar=first, help="as --store has it: sqlite:FILE, valkey://HOST:PORT/DB")
        if second:
            action.add_argument("other", metavar=second, help="likewise" if second == "TO" else "the file")
    given = parser.parse_args(list(arguments))
    try:
        return _run(given.action, given.store, getattr(given, "other", ""))
    except (StoreFailed, BadInput, OSError) as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return 1


def _run(action: str, url: str, other: str) -> int:
    file = file_of(url)
    if action != "restore" and file is not None and not file.exists():
        raise StoreFailed(f"there is no store {file}")
    store = open_store(url, Terms())
    try:
        match action:
            case "move":
                return _move(store, url, other)
            case "check":
                return _check(store)
            case "backup":
                return _back_up(store, Path(other))
            case _:
                return _restore(store, Path(other))
    finally:
        store.close()


def _told(pages: Iterator[Sequence[Record]], done: str) -> Iterator[Sequence[Record]]:
    """The same pages; how many records that were is said now and then."""
    count = 0
    with Progress() as progress:
        for records in pages:
            yield records
            count += len(records)
            progress.tell(f"{count:,} records {done}")


def _read(store: Store) -> Iterator[Sequence[Record]]:
    cursor, begun = None, False
    while cursor is not None or not begun:
        page = store.page(cursor, _MOST, time.time())
        yield page.records
        cursor, begun = page.cursor, True


def _whole(store: Store, damage: list[str]) -> Iterator[Sequence[Record]]:
    """What `_read` gives, less what is damaged: of a SQLite file, whose cursors are numbers until its tombstones come.

    From the first damage on one record at a time; a number at which nothing can be read is passed over.
    """
    cursor: object | None = 0
    most, failed = _MOST, 0  # in a row
    while cursor is not None:
        try:
            page = store.page(None if cursor == 0 else cursor, most, time.time())
        except StoreDamaged as error:
            if not damage:
                print(f"{_PROG}: {error}; it goes on record by record, which may take minutes", file=sys.stderr)
            damage[:] = [str(error)]
            if not isinstance(cursor, int):
                return  # the rest of the tombstones
            if most > 1:
                most = 1
            elif (failed := failed + 1) > _GAP:
                cursor = ""
            else:
                cursor += 1
            continue
        yield page.records
        cursor, failed = page.cursor, 0


def _move(source: Store, url: str, other: str) -> int:
    """Copies, and then looks whether all of it is there."""
    if described(url) == described(other):
        raise StoreFailed("both addresses are of the same store")
    target, outcomes, awake, ids, damage = open_store(other, Terms()), Counter[Outcome](), 0, set[str](), list[str]()
    try:
        for records in _told(_whole(source, damage), "copied"):
            outcomes.update(target.put(records, time.time()))
            awake += sum(record.awake for record in records)
            ids |= {record.id for record in records if record.reason is None}
        for records in _told(_read(target), "looked at"):
            ids -= {record.id for record in records}
    finally:
        target.close()
    _say(outcomes)
    if awake:
        print(f"{awake} were open when their server was last heard of: what it writes from now on is not moved")
    if ids:
        print(f"{len(ids)} sequences are missing in the target, such as {min(ids)}", file=sys.stderr)
    if damage:
        print("what was whole is copied; what could not be read is not", file=sys.stderr)
    return int(bool(ids or damage))


def _check(store: Store) -> int:
    census = Census()
    for records in _told(_read(store), "read"):
        count(census, records)
    compare(census, store.usage())
    print(words.checked(census.sequences, census.parked, census.tombstones, census.checkpoints))
    versions = words.versions((*of, number, False) for of, number in sorted(census.versions.items()))
    for line in chain(versions, census.faults):
        print(printable(line))
    if census.faults:
        print(f"{_PROG}: {words.faulty(len(census.faults))}", file=sys.stderr)
    return int(bool(census.faults))


def _back_up(store: Store, path: Path) -> int:
    writer = Writer()
    with replacing(path) as file:  # it holds states
        file.write(writer.head())
        for records in _told(_read(store), "written"):
            file.write(writer.records(records))
        file.write(writer.end())
        size = file.tell()
    print(f"{_PROG}: {words.written(path, size)}", file=sys.stderr)
    return 0


def _restore(store: Store, path: Path) -> int:
    """Reads the file to its end before anything is changed."""
    for _ in _told(_records(path), "looked at"):
        pass
    outcomes = Counter[Outcome]()
    for records in _told(_records(path), "put"):
        outcomes.update(store.put(records, time.time()))
    _say(outcomes)
    return 0


def _records(path: Path) -> Iterator[Sequence[Record]]:
    reader = Reader()
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            yield reader.feed(data)
    reader.finish()


def _say(outcomes: Counter[Outcome]) -> None:
    print(words.restored(*(outcomes[outcome] for outcome in (Outcome.PUT, Outcome.KEPT, Outcome.GONE))))
