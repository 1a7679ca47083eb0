"""What is said of a store, by `tidegate store` and by `python -m server store` alike."""

from collections.abc import Iterable, Iterator


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def kept(sequences: int, parked: int, tombstones: int) -> str:
    """What a store holds. A tombstone is a sequence that is gone, of which it is known why."""
    ended = f", and why {counted(tombstones, 'other')} ended" * bool(tombstones)
    return f"{counted(sequences, 'sequence')}, {parked:,} of them parked{ended}"


def checked(sequences: int, parked: int, tombstones: int, checkpoints: int) -> str:
    return f"{kept(sequences, parked, tombstones)}; {counted(checkpoints, 'checkpoint')} read"


def faulty(faults: int) -> str:
    return f"{counted(faults, 'fault')} found"


def versions(counts: Iterable[tuple[str, int, int, bool]]) -> Iterator[str]:
    """Of each model and version how many sequences a check has counted; and whether the version is known to be gone."""
    for model, version, count, stranded in counts:
        gone = ", which is gone: put it back, or see `tidegate versions move`" if stranded else ""
        yield f"  {model} version {version}: {count:,}{gone}"


def written(path: object, size: int) -> str:
    return f"{path} is written, {counted(size, 'byte')}"


def restored(put: int, newer: int, gone: int) -> str:
    """What became of the records of a backup, or of another store. A tombstone is a record, too."""
    there = f"{newer:,} left as they are there (open, or newer)"
    return f"{counted(put, 'record')} put; {there}; {gone:,} left out (ended there since)"
