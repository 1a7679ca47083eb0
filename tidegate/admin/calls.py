"""What operators ask of a server: its sequences, its store, the versions of its models. Written once for both clients.

What waits is a coroutine; the client for threads has it made `blocking`, and what comes in pages made an iterator.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from google.protobuf.message import Message

from tidegate.admin import facts
from tidegate.admin.facts import Restored, SequenceInfo, StoreCheck, StoreInfo, Versions
from tidegate.errors import TidegateError
from tidegate.files import replacing
from tidegate.opened import blocking, run
from tidegate.v1 import admin_pb2 as pb

P = ParamSpec("P")
T = TypeVar("T")

Call = Callable[[str, Message | Iterable[Message]], Coroutine[Any, Any, Any]]
Pages = Callable[[str, Message], AsyncIterator[Any]]
Told = Callable[[int], object]

_PIECE = 2**18  # bytes of a backup in one message
_DIGEST = 32  # bytes of the checksum at its end


def _untold(_: int) -> None:
    """Progress is not shown."""


class BadBackup(TidegateError):
    """A file that is no backup of a store, or not all of one."""


class AdminCore:
    """`call` makes a call that is answered once, `pages` one that is answered in pages."""

    def __init__(self, call: Call, pages: Pages) -> None:
        self._call = call
        self._pages = pages

    async def _change(self, model: str, **change: Any) -> Versions:  # noqa: ANN401 - one field of the message
        return Versions.read(await self._call("ChangeVersions", pb.ChangeVersionsRequest(model=model, **change)))


class AsyncAdmin(AdminCore):
    """The calls as coroutines and asynchronous iterators. Each raises Refused, ConnectionLost."""

    async def sequences(self, chosen: pb.SequenceFilter | None = None) -> AsyncIterator[SequenceInfo]:
        """The sequences that are open, asleep or parked, in no order; `chosen(...)` says which."""
        async for page in self._pages("ListSequences", pb.ListSequencesRequest(filter=chosen)):
            for message in page.sequences:
                yield SequenceInfo.read(message)

    async def end(self, chosen: pb.SequenceFilter) -> AsyncIterator[str]:
        """Ends these sequences, and gives the ids of those that have ended."""
        async for page in self._pages("EndSequences", pb.EndSequencesRequest(filter=chosen)):
            for id_ in page.ended:
                yield id_

    async def store(self) -> StoreInfo:
        """What the store is and holds."""
        said = await self._call("DescribeStore", pb.DescribeStoreRequest())
        return StoreInfo(**facts.values(StoreInfo, said))

    async def check(self, told: Told = _untold) -> StoreCheck:
        """Has every checkpoint read; `told` is called with how many were."""
        faults, said = list[str](), pb.CheckStoreResponse()
        async for page in self._pages("CheckStore", pb.CheckStoreRequest()):
            faults, said = [*faults, *page.faults], page
            told(page.checkpoints)
        return StoreCheck(
            **facts.values(
                StoreCheck,
                said,
                faults=tuple(faults),
                versions={(one.model, one.version): one.sequences for one in said.versions},
                stranded=frozenset((one.model, one.version) for one in said.versions if one.stranded),
            )
        )

    async def back_up(self, path: str | Path, told: Told = _untold) -> int:
        """Writes a backup of the store to a file of its owner alone, and returns its bytes. Raises OSError.

        `told` is called with how many there are by now.
        """
        with replacing(path) as file:
            async for page in self._pages("BackUpStore", pb.BackUpStoreRequest()):
                file.write(page.data)
                told(file.tell())
            file.flush()
            check_backup(file.name)
            return file.tell()

    async def restore(self, path: str | Path, told: Told = _untold) -> Restored:
        """Puts what a backup holds into the store. Raises OSError, BadBackup: then nothing was sent.

        `told` is called with how many bytes of the file were sent by now.
        """
        check_backup(path)
        said = await self._call("RestoreStore", _sent(path, told))
        return Restored(**facts.values(Restored, said))

    async def versions(self, model: str) -> Versions:
        """The versions of a model, and the rules for them."""
        return Versions.read(await self._call("ListVersions", pb.ListVersionsRequest(model=model)))

    async def pin(self, model: str, version: int) -> Versions:
        """New sequences that ask for no version get this one; 0: the newest that is ready."""
        return await self._change(model, pin=version)

    async def alias(self, model: str, name: str, version: int) -> Versions:
        """MODEL@NAME stands for a version; 0: for none."""
        return await self._change(model, alias=pb.VersionAlias(name=name, version=version))

    async def canary(self, model: str, version: int, share: float) -> Versions:
        """A part of the new sequences that ask for no version get this one, in percent; 0: none."""
        return await self._change(model, canary=pb.VersionCanary(version=version, share=share))

    async def load(self, model: str, version: int = 0) -> Versions:
        """Serves a version beside the newest; 0: takes back every withdrawal."""
        return await self._change(model, load=version)

    async def unload(self, model: str, version: int = 0) -> Versions:
        """Withdraws a version, or with 0 all: no new sequence gets it."""
        return await self._change(model, unload=version)

    async def move(self, model: str, version: int, to: int) -> Versions:
        """Withdraws a version, and has its sequences go on with another that keeps the same states; 0 takes it back."""
        return await self._change(model, move=pb.VersionMove(**{"from": version}, to=to))


def iterating(method: Callable[Concatenate[Any, P], AsyncIterator[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The same method as an iterator, in a class whose coroutines block where they wait."""

    @wraps(method)
    def iterate(self: object, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        pages = method(self, *args, **kwargs)
        while True:
            try:
                yield run(pages.__anext__)  # type: ignore[arg-type] # what it returns can be sent to
            except StopAsyncIteration:
                return

    return iterate


class Admin(AdminCore):
    """The calls for threads."""

    sequences = iterating(AsyncAdmin.sequences)
    end = iterating(AsyncAdmin.end)
    store = blocking(AsyncAdmin.store)
    check = blocking(AsyncAdmin.check)
    back_up = blocking(AsyncAdmin.back_up)
    restore = blocking(AsyncAdmin.restore)
    versions = blocking(AsyncAdmin.versions)
    pin = blocking(AsyncAdmin.pin)
    alias = blocking(AsyncAdmin.alias)
    canary = blocking(AsyncAdmin.canary)
    load = blocking(AsyncAdmin.load)
    unload = blocking(AsyncAdmin.unload)
    move = blocking(AsyncAdmin.move)


def _sent(path: str | Path, told: Told) -> Iterator[pb.RestoreStoreRequest]:
    sent = 0
    for part in _parts(path):
        yield pb.RestoreStoreRequest(data=part)
        told(sent := sent + len(part))


def check_backup(path: str | Path) -> None:
    """Raises BadBackup: the file is no backup, or it is cut short or damaged. OSError."""
    digest, last = blake2b(digest_size=_DIGEST), b""
    for part in _parts(path):
        digest.update((last + part)[:-_DIGEST])
        last = (last + part)[-_DIGEST:]
    if digest.digest() != last:
        raise BadBackup(f"{path} is no backup of a store, or is cut short or damaged: its checksum differs")


def _parts(path: str | Path) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        while part := file.read(_PIECE):
            yield part
