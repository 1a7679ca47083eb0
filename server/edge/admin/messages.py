"""Translates between the messages of the admin contract and the types of the rooms below. Decides nothing."""

from collections.abc import Callable, Sequence

from server.caller import Caller, Right
from server.durability.upkeep.listing import Filter, Listed, Where
from server.durability.upkeep.upkeep import Census
from server.edge.native.descriptions import STATUSES
from server.errors import BadInput, Reason
from server.repository.placement import Placement
from server.repository.repository import Repository
from server.stores.store import Usage
from tidegate.v1 import admin_pb2

_WHERE = {
    admin_pb2.SEQUENCE_LIFE_OPEN: Where.OPEN,
    admin_pb2.SEQUENCE_LIFE_ASLEEP: Where.ASLEEP,
    admin_pb2.SEQUENCE_LIFE_PARKED: Where.PARKED,
}
_LIFE = {where: life for life, where in _WHERE.items()}


def wanted(given: admin_pb2.SequenceFilter, caller: Caller, right: Right, placement: Placement) -> Filter:
    """The filter, for the models that the caller has this right for. Raises BadInput: it says what nothing can be."""
    if unknown := [life for life in given.lives if life not in _WHERE]:
        raise BadInput(f"a filter names a life of {unknown[0]}; expected one of {list(_WHERE)}", Reason.MALFORMED)
    if not given.idle_seconds >= 0:
        raise BadInput(f"a filter has {given.idle_seconds} idle seconds; expected 0 or more", Reason.MALFORMED)
    stranded: Callable[[Listed], bool] = lambda one: placement.strands(one.model, one.version)  # noqa: E731
    return Filter(
        ids=frozenset(given.ids),
        model=given.model,
        version=given.version,
        owner=given.owner,
        wheres=frozenset(_WHERE[life] for life in given.lives),
        idle=given.idle_seconds,
        sees=lambda model: caller.may(right, model),
        stranded=stranded if given.stranded else None,
    )


def check_given(given: admin_pb2.SequenceFilter) -> None:
    """Raises BadInput: everything would be meant. A field that is not known here, of a newer client, says nothing."""
    if not given.ListFields():
        raise BadInput("a filter without any field would end every sequence; say which", Reason.MALFORMED)


def sequences(found: Sequence[Listed], placement: Placement) -> bytes:
    """A page; b"" if there is nothing on it."""
    infos = [_sequence(one, placement) for one in found]
    return admin_pb2.ListSequencesResponse(sequences=infos).SerializeToString()


def _sequence(one: Listed, placement: Placement) -> admin_pb2.SequenceInfo:
    return admin_pb2.SequenceInfo(
        id=one.id,
        model=one.model,
        version=one.version,
        steps=one.steps,
        life=_LIFE[one.where],
        owner=one.label,
        token=one.token,
        address=one.address,
        idle_seconds=one.idle,
        checkpointed=one.checkpointed,
        checkpoint_bytes=one.bytes,
        here=one.here,
        moves_to=placement.destination(one.model, one.version),
        stranded=placement.strands(one.model, one.version),
    )


def census(counted: Census, placement: Placement) -> bytes:
    versions = [
        admin_pb2.VersionCount(
            model=model, version=version, sequences=count, stranded=placement.strands(model, version)
        )
        for (model, version), count in sorted(counted.versions.items())
    ]
    return admin_pb2.CheckStoreResponse(
        done=counted.done,
        sequences=counted.sequences,
        parked=counted.parked,
        tombstones=counted.tombstones,
        checkpoints=counted.checkpoints,
        checkpoint_bytes=counted.bytes,
        faults=counted.faults,
        versions=versions if counted.done else (),
    ).SerializeToString()


def store(kind: str, place: str, most: int, usage: Usage | None, fault: str) -> bytes:
    said = admin_pb2.DescribeStoreResponse(kind=kind, place=place, most_bytes=most, fault=fault)
    if usage is not None:
        said.answers = True
        said.sequences, said.parked, said.tombstones = usage.sequences, usage.parked, usage.tombstones
        said.checkpoint_bytes, said.taken_bytes = usage.bytes, usage.taken
    return said.SerializeToString()


def versions(repository: Repository, name: str) -> bytes:
    rules = repository.rulebook.of(name)
    said = admin_pb2.Versions(
        model=name, pinned=rules.pin, unloaded=rules.unloaded, fault=repository.rulebook.fault(name)
    )
    said.aliases.extend(admin_pb2.VersionAlias(name=alias, version=of) for alias, of in sorted(rules.alias.items()))
    if rules.canary:
        said.canary.CopyFrom(admin_pb2.VersionCanary(version=rules.canary, share=rules.share))
    moves = sorted(rules.move.items())
    said.moves.extend(admin_pb2.VersionMove(**{"from": version}, to=to) for version, to in moves)
    here = repository.versions(name)
    entries = {entry.found.version: entry for entry in repository.entries() if entry.found.name == name}
    served = [model for model in repository.served() if model.name == name]
    for version in sorted({*here, *entries, *(model.version for model in served)}):
        info = said.versions.add(version=version, here=version in here, withdrawn=rules.withdraws(version))
        info.open = sum(model.slots.in_use + model.asleep for model in served if model.version == version)
        entry = entries.get(version)
        if entry is None:
            continue
        info.status, info.reason = STATUSES[entry.state], str(entry.refusal or "")
    return said.SerializeToString()
