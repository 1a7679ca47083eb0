"""Changes to the rules of a model's versions, as calls: each writes `versions.toml` and follows it at once."""

import logging
from collections.abc import Callable
from dataclasses import replace

from server.errors import ModelUnavailable, Reason, UnknownModel, WrongState
from server.repository import rules
from server.repository.entry import Entry
from server.repository.repository import Repository
from server.repository.rules import Rules
from server.runtime import state_value
from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)


async def change(repository: Repository, name: str, by: Callable[[Rules], Rules]) -> None:
    """Raises UnknownModel, BadInput: the rules would contradict each other, ModelUnavailable: it cannot be written."""
    repository.check_known(name)
    await repository.rulebook.change(name, by)
    await repository.look()


async def pin(repository: Repository, name: str, version: int) -> None:
    """New sequences that ask for no version get this one; 0: the newest that is ready."""
    if version:
        _check_here(repository, name, version)
    await change(repository, name, lambda r: replace(r, pin=version, load=r.load - {version}))


async def alias(repository: Repository, name: str, as_: str, version: int) -> None:
    """MODEL@NAME stands for this version; 0: for none."""
    if version:
        _check_here(repository, name, version)

    def by(r: Rules) -> Rules:
        others = {key: of for key, of in r.alias.items() if key != as_}
        return replace(r, alias={**others, as_: version} if version else others)

    await change(repository, name, by)


async def canary(repository: Repository, name: str, version: int, share: float) -> None:
    """A part of the new sequences get this version, in percent; 0: none."""
    if share:
        _check_here(repository, name, version)
    await change(repository, name, lambda r: replace(r, canary=version if share else 0, share=share))


async def load(repository: Repository, name: str, version: int = 0) -> Entry:
    """Serves a version beside the newest; 0: takes back every withdrawal. Returns once it is loaded or refused."""

    def by(r: Rules) -> Rules:
        if not version:
            return replace(r, unload=frozenset(), unloaded=False)
        others = frozenset(repository.versions(name)) - {version} if r.unloaded else r.unload - {version}
        move = {source: to for source, to in r.move.items() if source != version}
        return replace(r, load=r.load | {version}, unload=others, unloaded=False, move=move)

    if version:
        _check_here(repository, name, version)
    await change(repository, name, by)
    return await repository.settled(name, version or max(repository.versions(name)))


async def unload(repository: Repository, name: str, version: int = 0) -> None:
    """Withdraws a version, or with 0 all: no new sequence gets it. Those that are open go on with it."""

    def by(r: Rules) -> Rules:
        if not version:
            return replace(r, unloaded=True)
        return replace(r, unload=r.unload | {version}, load=r.load - {version})

    await change(repository, name, by)


async def move(repository: Repository, name: str, version: int, to: int) -> None:
    """Withdraws a version and has its sequences go on with another; 0 takes that back.

    Raises WrongState: the other keeps other states. Of a version that is gone, that is seen when its sequences come.
    """
    if to:
        target = await _served(repository, name, to)
        if version in repository.versions(name) and version != rules.REST:
            state_value.fitting([await _served(repository, name, version)], target, inputs=True)
    await change(repository, name, lambda r: rules.moved(r, version, to))


def moving(repository: Repository) -> list[ServedModel]:
    """The models whose open sequences are to be resumed, because they go on with another version that is ready."""
    found = []
    for model in repository.served():
        target = repository.ready(model.name, repository.destination(model.name, model.version))
        if target is None or not model.in_use:
            continue
        try:
            state_value.fitting((model,), target, inputs=True)
            found.append(model)
        except WrongState as error:
            log.warning("sequences stay where they are: %s", str(error))
    return found


async def _served(repository: Repository, name: str, version: int) -> ServedModel:
    """A version, which is loaded for that. Raises UnknownModel, ModelUnavailable."""
    found = [model for model in repository.served() if (model.name, model.version) == (name, version)]
    if found:
        return found[-1]
    wanted = version in repository.rulebook.of(name).wanted
    entry = await (repository.settled(name, version) if wanted else load(repository, name, version))
    if entry.served is None:
        why = str(entry.refusal) if entry.refusal else "it takes long to load; try again"
        raise ModelUnavailable(f"model '{name}' version {version} is not served: {why}", Reason.MODEL_REFUSED)
    return entry.served


def _check_here(repository: Repository, name: str, version: int) -> None:
    repository.check_known(name)
    if version not in repository.versions(name):
        here = ", ".join(map(str, repository.versions(name))) or "none"
        raise UnknownModel(f"model '{name:.60}' has no version {version} here; it has {here}", Reason.UNKNOWN_VERSION)
