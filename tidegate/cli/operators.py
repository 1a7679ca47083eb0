"""What the commands for who runs a server do: a function for each, under its name. They print; they do not parse."""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

from tidegate.admin import words
from tidegate.admin.facts import SequenceInfo, StoreInfo, Versions, chosen
from tidegate.admin.words import counted
from tidegate.cli.sinks import style_of
from tidegate.client import Client
from tidegate.drawing.names import printable
from tidegate.errors import TidegateError
from tidegate.progress import Progress

_ACTIONS = ("list", "show", "end")
_HEADER = ("ID", "MODEL", "VERSION", "STEPS", "STATE", "IDLE", "OWNER", "FROM")
_FIRST = 200  # rows that say how wide the columns are
_TIMES = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def sequences(client: Client, options: Namespace) -> None:
    action, *ids = options.what or ["list"]
    if action not in _ACTIONS:
        raise TidegateError(f"there is no action '{action}'; expected {', '.join(_ACTIONS[:-1])} or {_ACTIONS[-1]}")
    wanted = chosen(
        ids,
        model=options.model,
        version=options.version,
        owner=options.owner,
        life=options.lives or (),
        idle_seconds=options.idle,
        stranded=options.stranded,
    )
    as_json = options.json or not sys.stdout.isatty()
    if action == "end":
        confirmed = options.yes or _confirmed(sum(1 for _ in client.admin.sequences(wanted)))
        _end(ids, client.admin.end(wanted) if confirmed else ())
        return
    found = client.admin.sequences(wanted)
    if action == "show":
        _show(ids, found, as_json)
    else:
        _print_all(found, as_json)


def _confirmed(count: int) -> bool:
    """False: there is nothing to be ended. Raises TidegateError: it was not confirmed."""
    if not count:
        return False
    if not sys.stdin.isatty():
        raise TidegateError(f"{counted(count, 'sequence')} would end; say --yes")
    print(f"{counted(count, 'sequence')} will end for good, memory and all. End? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TidegateError("nothing was ended")
    return True


def _end(ids: Sequence[str], ending: Iterable[str]) -> None:
    ended = set[str]()
    for id_ in ending:
        print(printable(id_))
        ended.add(id_)
    print(f"tidegate: {counted(len(ended), 'sequence')} ended", file=sys.stderr)
    _check_there(ids, ended)


def _show(ids: Sequence[str], found: Iterable[SequenceInfo], as_json: bool) -> None:
    seen = set[str]()
    for one in found:
        seen.add(one.id)
        if as_json:
            print(json.dumps(asdict(one)))
            continue
        blank = "\n" * (len(seen) > 1)
        print(blank + "\n".join(f"{name:12} {printable(value)}" for name, value in _facts(one) if value))
    _check_there(ids, seen)


def _check_there(ids: Sequence[str], seen: set[str]) -> None:
    """Raises TidegateError: one that was named is not among them."""
    if missing := [id_ for id_ in ids if id_ not in seen]:
        raise TidegateError(f"no sequence '{missing[0]}' is open or kept here")


def _facts(one: SequenceInfo) -> Iterator[tuple[str, str]]:
    yield "id", one.id
    yield "model", one.model
    yield "version", f"{one.version}{', which is gone' * one.stranded}"
    yield "goes on with", f"version {one.moves_to}" if one.moves_to else ""
    yield "steps", f"{one.steps}"
    yield "state", one.life + (", on another server" if one.life != "parked" and not one.here else "")
    yield "last step", f"{ago(one.idle_seconds)} ago"
    yield (
        "checkpoint",
        "none" if one.checkpointed is None else f"at step {one.checkpointed}, {one.checkpoint_bytes} bytes",
    )
    yield "token", one.token
    yield "owner", one.owner
    yield "from", _host(one)


def _print_all(found: Iterator[SequenceInfo], as_json: bool) -> None:
    if as_json:
        for one in found:
            print(json.dumps(asdict(one)))
        return
    first = [_row(one) for one in islice(found, _FIRST)]
    widths = [max(len(row[at]) for row in (_HEADER, *first)) for at in range(len(_HEADER))]
    print(style_of(sys.stdout).dim(_line(_HEADER, widths)))
    count = 0
    for row in chain(first, map(_row, found)):
        print(_line(row, widths))
        count += 1
    print(f"tidegate: {counted(count, 'sequence')}", file=sys.stderr)


def _row(one: SequenceInfo) -> tuple[str, ...]:
    version = f"{one.version} -> {one.moves_to}" if one.moves_to else f"{one.version}{' (gone)' * one.stranded}"
    whose = " ".join(filter(None, (one.token and f"token {one.token}", one.owner)))
    cells = one.id, one.model, version, str(one.steps), one.life, ago(one.idle_seconds), whose, _host(one)
    return tuple(map(printable, cells))


def _host(one: SequenceInfo) -> str:
    return re.sub("^ipv[46]:", "", one.address)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def ago(seconds: float) -> str:
    """A time in its largest unit: 90 -> 1m."""
    return next((f"{int(seconds // of)}{unit}" for unit, of in _TIMES if seconds >= of), "0s")


def store(client: Client, options: Namespace) -> None:
    match options.action:
        case "info":
            _print_store(client.admin.store(), options.json or not sys.stdout.isatty())
        case "check":
            _check_store(client, options.json or not sys.stdout.isatty())
        case "backup":
            with Progress() as progress:
                size = client.admin.back_up(options.file, lambda size: progress.tell(f"{_mib(size)} written"))
            print(f"tidegate: {words.written(options.file, size)}", file=sys.stderr)
        case _:
            whole = _mib(Path(options.file).stat().st_size)
            with Progress() as progress:
                put = client.admin.restore(options.file, lambda size: progress.tell(f"{_mib(size)} of {whole} sent"))
            print(words.restored(put.restored, put.kept, put.gone))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _print_store(said: StoreInfo, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(said)))
        return
    print(f"{said.kind} {printable(said.place)}".rstrip())
    if said.fault:
        print(f"{'reads work, writes fail' if said.answers else 'does not answer'}: {printable(said.fault)}")
    if said.answers:
        print(words.kept(said.sequences, said.parked, said.tombstones))
        print(f"{said.taken_bytes / 2**20:.1f} MiB of {said.most_bytes / 2**20:.0f} MiB")


def _check_store(client: Client, as_json: bool) -> None:
    """Raises TidegateError: something is wrong."""
    with Progress() as progress:
        said = client.admin.check(lambda count: progress.tell(f"{count:,} checkpoints read"))
    if as_json:
        versions = [
            {"model": model, "version": version, "sequences": count, "stranded": (model, version) in said.stranded}
            for (model, version), count in said.versions.items()
        ]
        print(json.dumps(asdict(said) | {"versions": versions, "stranded": len(said.stranded)}))
    else:
        print(words.checked(said.sequences, said.parked, said.tombstones, said.checkpoints))
        for line in words.versions((*of, count, of in said.stranded) for of, count in said.versions.items()):
            print(printable(line))
        for fault in said.faults:
            print(printable(fault))
    if said.faults:
        raise TidegateError(words.faulty(len(said.faults)))


def versions(client: Client, options: Namespace) -> None:
    admin, model = client.admin, options.model
    calls: dict[str, Callable[[], Versions]] = {
        "pin": lambda: admin.pin(model, options.version),
        "alias": lambda: admin.alias(model, options.name, options.version),
        "canary": lambda: admin.canary(model, options.version, options.share),
        "load": lambda: admin.load(model, options.version),
        "unload": lambda: admin.unload(model, options.version),
        "move": lambda: admin.move(model, options.version, options.to),
    }
    if options.action == "show":
        names = [model] if model else sorted({one.name for one in client.models()})
        shown = [admin.versions(name) for name in names]
    else:
        shown = [calls[options.action]()]
    for said in shown:
        if options.json or not sys.stdout.isatty():
            print(json.dumps(asdict(said)))
        else:
            print("\n".join(map(printable, _rules(said))))


def _rules(said: Versions) -> Iterator[str]:
    """The versions and rules of a model, as lines for a person."""
    names = {version: [name for name, of in said.aliases.items() if of == version] for version in said.aliases.values()}
    for one in said.versions:
        notes = [f"@{name}" for name in names.get(one.version, [])]
        notes += ["pinned"] if one.version == said.pinned else []
        notes += [f"canary for {said.canary[1]:g} %"] if said.canary and said.canary[0] == one.version else []
        notes += ["withdrawn"] if one.withdrawn else []
        notes += [f"goes on with {said.moves[one.version]}"] if one.version in said.moves else []
        notes += [] if one.here else ["its folder is gone"]
        notes += [f"{one.open} open"] if one.open else []
        yield f"{said.model} version {one.version}  {one.status or 'not served'}  {', '.join(notes)}".rstrip()
        if one.reason:
            yield f"  {one.reason}"
    named = {"new sequences get": said.pinned} | {f"@{name} is": of for name, of in said.aliases.items()}
    named |= {f"version {of} goes on with" if of else "the rest goes on with": to for of, to in said.moves.items()}
    here = {one.version for one in said.versions if one.here} | {0}
    for what, version in named.items():
        if version not in here:
            yield f"{what} version {version}, which is gone: they are refused"
    if 0 in said.moves:
        yield f"whatever else is withdrawn or gone goes on with version {said.moves[0]}"
    if said.fault:
        yield f"versions.toml is not followed: {said.fault}"
