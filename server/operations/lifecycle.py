"""Start, serve, drain, stop: called in that order."""

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.ma  # noqa: F401 # np.unique imports it when it is called first, which takes 10 ms
from grpc_health.v1 import health, health_pb2

from server.access.authority import Authority
from server.access.token_file import TokenFile
from server.durability.keeper import AnyKeeper, Keeper
from server.durability.null_keeper import NullKeeper
from server.durability.store_thread import StoreThread
from server.edge.admin.service import SERVICE as ADMIN
from server.edge.admin.service import AdminServicer
from server.edge.admission import Admission
from server.edge.backend import Backend
from server.edge.native.service import SERVICE, Servicer
from server.edge.oip import service as oip
from server.edge.standard import Health, Reflection
from server.edge.transports import UNIX, place, remove_socket
from server.lives import Lives
from server.meter import LimitsOf
from server.operations import connections, exposure, sample
from server.operations.following import Following
from server.operations.journal import Journal
from server.operations.memory import Memory
from server.operations.metrics import Metrics
from server.operations.process import obey
from server.operations.pulse import Pulse
from server.repository.repository import Repository
from server.runtime.loop_turn import LoopTurn
from server.runtime.observer import Observer
from server.settings import Settings
from server.stores.open import open_store
from server.stores.terms import Terms

if TYPE_CHECKING:
    from server.operations.spans import Spans

log = logging.getLogger(__name__)

_HEALTH = health_pb2.HealthCheckResponse
_OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
STORE = "tidegate.store"  # the name of the store in the health service
_TOKENS = 1.0  # seconds between two looks at the file of tokens
_GLANCE = 0.5  # seconds between two looks at the store's health
_FAREWELL = 0.2  # seconds for the last statuses to leave
_FLUSH = 1.0  # seconds for the last spans to be sent
_LOOK = 5.0  # seconds between two looks at the descriptors, and at what the log has left out


class Server:
    """The process's one server. `shares_port`: other servers listen on the same port."""

    def __init__(self, settings: Settings, shares_port: bool = False) -> None:
        self._settings = settings
        self._shares_port = shares_port
        turn = LoopTurn(lambda call: asyncio.get_running_loop().call_soon(call))
        self._repository = Repository(settings, observer=_observer(settings.observer), turn=turn)
        self._admission = Admission(self._repository, settings)
        self._journal, self._pulse = Journal(), Pulse()
        self._spans = _spans(settings)
        lives = Lives([self._journal, *([] if self._spans is None else [self._spans])])
        self._authority = Authority(TokenFile(Path(settings.tokens)) if settings.tokens != "none" else None)
        self._keeper = _keeper(settings, self._admission, self._authority.limits_of, lives)
        self._backend = Backend(settings, self._repository, self._admission, self._keeper, self._authority, turn)
        self._backend.refusals.tell, self._backend.tracer = self._journal.refused, self._spans
        self._health = Health(self._admission, self._backend.incoming)
        self._certificates = connections.certificates(settings)
        self._transport = connections.transport(settings, shares_port, self._certificates, turn)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics: Metrics | None = None
        self.port = 0

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Starts, serves until SIGTERM or SIGINT, drains and stops; `ready` is called once it serves."""
        obey(self.ask_to_stop)
        starting, stopping = asyncio.create_task(self.start()), asyncio.create_task(self._stopping.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            self._repository.stop()  # a load that is under way is not waited for
            await asyncio.wait((starting,), timeout=self._settings.grace_seconds)
            starting.cancel()  # a folder or a store may hang
            await asyncio.wait((starting,))
        if not starting.cancelled():
            starting.result()
        ready()
        await stopping
        await self.drain()
        await self.stop()

    @property
    def address(self) -> str:
        return place(self._settings.host, self.port)

    def ask_to_stop(self) -> None:
        self._stopping.set()

    async def start(self) -> None:
        """Listens, loads the models, and then says that it serves."""
        await self._keeper.start()
        Servicer(self._backend).add_to(self._transport)
        AdminServicer(self._backend).add_to(self._transport)
        oip.InferenceServicer(self._backend).add_to(self._transport)
        self._health.add_to(self._transport)
        services = SERVICE, ADMIN, oip.SERVICE, health.SERVICE_NAME
        Reflection(self._admission, self._backend.caller, *services).add_to(self._transport)
        self._set_health(_HEALTH.NOT_SERVING)
        self._tasks.append(asyncio.create_task(self._watch_store()))  # it answers while models are loaded
        if self._settings.metrics_port:
            self._metrics = Metrics(self._read, self._settings.silent_seconds)
            host = "127.0.0.1" if self._settings.host.startswith(UNIX) else self._settings.host
            host = self._settings.metrics_host or host
            self._metrics.start(host, self._settings.metrics_port)
        if self._shares_port:  # until the models are loaded the others are better led to
            await self._repository.refresh(settled=True)
            await self._listen()
        else:
            await self._listen()
            await self._repository.refresh(settled=True)
        if not self._stopping.is_set():
            self._set_health(_HEALTH.SERVING)
        following = Following(self._repository, self._keeper, self._settings.poll_seconds)
        looks = [
            _every(_TOKENS, self._authority.refresh),
            _every(_LOOK, self._journal.sum_up),
            _every(_LOOK, lambda: connections.warn_if_full(self._settings)),
            _every(_LOOK, partial(asyncio.to_thread, Memory().look)),
        ]
        if self._certificates is not None:
            looks.append(_every(self._settings.poll_seconds, partial(asyncio.to_thread, self._certificates.look)))
        for work in (following.run(), self._keeper.run(), self._pulse.run(), *looks):
            self._tasks.append(asyncio.create_task(work))
        _settle_memory(self._settings.transport)
        ready = sum(entry.served is not None for entry in self._repository.entries())
        log.info("serving %d %s on %s", ready, "model" if ready == 1 else "models", self.address)

    async def drain(self) -> None:
        """Opens nothing new, and waits for open streams, but not longer than `grace_seconds`."""
        log.info("stopping: %d streams are open", self._admission.streams)
        self._set_health(_HEALTH.NOT_SERVING)
        await self._admission.drain(self._settings.grace_seconds)
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Ends the calls that are left, and writes all checkpoints while the store answers."""
        await self._transport.stop(_FAREWELL)
        written = await self._keeper.flush()
        if not written:
            log.warning("the last checkpoints could not be written: resumed sequences go on from earlier ones")
        await self._keeper.stop(self._settings.store_seconds if written else _FAREWELL)
        if self._settings.host.startswith(UNIX):
            with suppress(OSError):  # another server may have taken the place
                remove_socket(self._settings.host.removeprefix(UNIX))
        if self._metrics is not None:
            await self._metrics.stop()
        self._repository.stop()
        if self._spans is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._spans.stop), _FLUSH)
        self._journal.sum_up()
        log.info("stopped")

    def _read(self) -> sample.Sample:
        refusals, late = self._backend.refusals, self._pulse.late
        return sample.take(self._repository, self._keeper, self._admission, refusals, late, self._certificates)

    async def _listen(self) -> None:
        host, self.port = self._settings.host, self._settings.port
        try:
            self.port = await self._transport.listen(host, self.port)
        except OSError as error:
            if host.startswith(UNIX):
                raise OSError(f"cannot listen on {self.address}: {error}") from error
            raise exposure.refused(self.address, error) from error

    async def _watch_store(self) -> None:
        """Has the health of the service STORE say whether checkpoints are written."""
        while (store := self._keeper.sample()) is not None:
            self._health.set(STORE, _HEALTH.SERVING if store.answers else _HEALTH.NOT_SERVING)
            await asyncio.sleep(_GLANCE)

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in (health.OVERALL_HEALTH, SERVICE):
            self._health.set(service, status)


def _keeper(settings: Settings, models: Admission, limits_of: LimitsOf, lives: Lives) -> AnyKeeper:
    if settings.store == "none":
        return NullKeeper(settings, limits_of, lives)
    retention = settings.retention_hours * 3_600
    terms = Terms(keep=settings.keep_checkpoints, retention=retention, tombstone=retention)
    store_thread = StoreThread(lambda: open_store(settings.store, terms), settings.store_seconds)
    return Keeper(store_thread, settings, models, limits_of, lives=lives)


def _spans(settings: Settings) -> "Spans | None":
    """Sends spans, if it is said where to. Raises OSError: the packages for that are not installed."""
    if not (settings.otlp_endpoint or any(os.environ.get(name) for name in _OTLP)):
        return None
    try:
        spans: type[Spans] = import_module("server.operations.spans").Spans
    except ImportError as error:
        raise OSError(
            f"--otlp-endpoint needs the packages of the group `tracing` in pyproject.toml ({error})"
        ) from error
    return spans(settings.otlp_endpoint, os.environ)


def _observer(name: str) -> Observer | None:
    """Makes the observer that a setting names as MODULE:CLASS. Raises OSError: there is no such class."""
    if name == "none":
        return None
    module, _, kind = name.partition(":")
    try:
        made: Observer = getattr(import_module(module), kind)()
    except Exception as error:
        raise OSError(f"--observer is {name!r}; expected MODULE:CLASS, which can be imported ({error})") from error
    return made


async def _every(seconds: float, look: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(seconds)
        if isinstance(looking := look(), Awaitable):
            await looking


def _settle_memory(transport: str) -> None:
    """Has the garbage collector skip all objects made so far, and collect later ones often, a few at a time.

    A collection holds up the event loop: of 20,000 new objects for about 10 ms, of 1,000 for less than one. What a call
    or a connection leaves refers to itself nowhere, but in grpcio: there all objects are looked at from time to time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000, 2, 10 if transport == "grpc" else 10_000)
