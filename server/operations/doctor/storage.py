"""Folders, models and the store. Changes nothing but the cache of proofs, which is made to be filled."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from server.errors import StoreFailed
from server.operations.doctor.finding import FAULT, OK, WARNING, Finding
from server.repository import folder
from server.repository.rules import parsed
from server.repository.source import intake
from server.settings import Settings
from server.stores.open import described, file_of, open_store, without_password
from server.stores.terms import Terms
from stepgraph.errors import ModelRefused
from stepgraph.isolation.intake import Effort, Intake
from tidegate.admin import words

_LITTLE = 2**30  # bytes of disk
_NEARLY = 0.9  # of what the store may hold


def folders(settings: Settings) -> Iterator[Finding]:
    models = settings.models
    if not models.is_dir():
        yield Finding(FAULT, "models", f"{models} is no folder", "make it, or give another with --models")
    elif not os.access(models, os.R_OK | os.X_OK):
        yield Finding(FAULT, "models", f"{models} cannot be read", f"chmod -R a+rX {models}")
    cache = settings.cache_folder
    if cache is None:
        yield Finding(WARNING, "cache", "there is none", "give a folder with --cache: else a restart proves all again")
    elif not _is_writable(cache):
        yield Finding(WARNING, "cache", f"{cache} cannot be written to", "mend its owner: a restart proves all again")
    else:
        yield Finding(OK, "cache", f"{cache} can be written to")


def models(settings: Settings, quick: bool) -> Iterator[Finding]:
    """Loads every file, or, if that is to be quick, says what is known of it."""
    try:
        found = folder.look(settings.models)
    except OSError:
        return  # `folders` has said it
    for stray in found.strays:
        yield Finding(WARNING, "models", f"{stray.path} is not served: {stray.reason}", "move or rename it")
    if not found.models:
        yield Finding(WARNING, "models", f"{settings.models} holds none", f"put one at {folder.PLACE}")
    yield from _rules(found)
    source = intake(settings)
    try:
        for (name, version), model in sorted(found.models.items()):
            yield _loaded(f"{name} version {version}", model, source, settings, quick)
    finally:
        source.close()


def _rules(found: folder.Look) -> Iterator[Finding]:
    """What is wrong with the files of rules."""
    for name, text in found.rules.items():
        file = f"{name}/{folder.RULES}"
        try:
            rules = parsed(text)
        except ValueError as error:
            yield Finding(FAULT, "models", f"{file} is not followed: {error}", "mend it")
            continue
        for rule in rules.missing({version for of, version in found.models if of == name}):
            mend = f"put it back, or see `tidegate versions show {name}`"
            yield Finding(WARNING, "models", f"{file} says {rule}, which is gone: what asks for it is refused", mend)


def _loaded(name: str, model: folder.Found, source: Intake, settings: Settings, quick: bool) -> Finding:
    mend = f"python -m server check {model.path}"
    if model.fault:
        return Finding(FAULT, "models", f"{name}: {model.fault}", "mend the file")
    try:
        loaded = source.load(model.path, Effort.KNOWN if quick else Effort.PATIENT)
    except (ModelRefused, OSError) as refusal:
        return Finding(FAULT, "models", f"{name} is refused: {refusal}", mend)
    if loaded is None:
        return Finding(OK, "models", f"{name} was not tried yet")
    if loaded.proof.objection:
        level = FAULT if settings.strict else WARNING
        return Finding(level, "models", f"{name} is ready, but: {loaded.proof.objection}", mend)
    return Finding(OK, "models", f"{name} is ready (largest error {loaded.proof.max_error:.1e})")


def store(settings: Settings) -> Iterator[Finding]:
    if not settings.outlives:
        mend = "give --store sqlite: or valkey://HOST:PORT/0 to keep them"
        yield Finding(WARNING, "store", f"{settings.store}: sequences end with their server", mend)
        return
    try:
        path = file_of(settings.store)
        if path is not None:
            yield from _disk(path, settings)
        if path is not None and not path.exists():
            yield _to_be_made(path)
            return
        opened = open_store(settings.store, Terms(keep=settings.keep_checkpoints))
        try:
            usage = opened.usage()
        finally:
            opened.close()
    except StoreFailed as error:
        yield Finding(FAULT, "store", f"{without_password(settings.store)}: {error}", "start it, or mend --store")
        return
    limit = settings.max_store_mib * 2**20
    held = words.kept(usage.sequences, usage.parked, usage.tombstones)
    taken = f"{usage.taken / 2**20:,.0f} of {settings.max_store_mib:,.0f} MiB"
    text = f"{' '.join(described(settings.store))} answers: {held}, {taken}"
    full = usage.taken > _NEARLY * limit or usage.parked > _NEARLY * settings.max_parked
    mend = "raise --max-store-mib and --max-parked, or lower --retention-hours: else those parked longest are evicted"
    yield Finding(WARNING, "store", text, mend) if full else Finding(OK, "store", text)


def _to_be_made(path: Path) -> Finding:
    if path.parent.is_dir() and _is_writable(path.parent):
        return Finding(OK, "store", f"{path} will be made")
    return Finding(FAULT, "store", f"{path} cannot be made", "make its folder, or mend the folder's owner")


def _disk(path: Path, settings: Settings) -> Iterator[Finding]:
    there = _nearest(path.parent)
    free = shutil.disk_usage(there).free
    used = path.stat().st_size if path.exists() else 0
    wanted = max(0.0, settings.max_store_mib * 2**20 - used)
    text = f"{free / 2**30:.1f} GiB are free for the store at {there}"
    if free < _LITTLE:
        yield Finding(WARNING, "disk", text, "make room: what cannot be written is lost with the server")
    elif free < wanted:
        yield Finding(WARNING, "disk", text, f"make room, or lower --max-store-mib ({settings.max_store_mib:,.0f})")
    else:
        yield Finding(OK, "disk", text)


def _is_writable(path: Path) -> bool:
    """Whether it can be made, if it is not there, and written to."""
    return os.access(_nearest(path), os.W_OK | os.X_OK)


def _nearest(path: Path) -> Path:
    """The folder itself, or the one above it that is there."""
    return next((each for each in (path, *path.absolute().parents) if each.is_dir()), Path("/"))
