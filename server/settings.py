"""What can be set, each with its default and unit: on the command line, else in the environment, else the default."""

import argparse
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, dataclass, fields
from math import inf
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

from server import machine

PREFIX = "TIDEGATE_"
_ZERO = {  # settings that may be 0
    "max_streams",
    "port",
    "metrics_port",
    "patience_ms",
    "spot_us",
    "grace_seconds",
    "max_per_owner",
    "max_per_address",
    "max_parked_per_owner",
}

_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
_FEWEST_STREAMS, _MOST_STREAMS = 16, 1_024  # where it is left to the server
_MOST_KEPT = 250  # a store has room for 256 checkpoints of a sequence, and some are kept for who resumes


@dataclass(frozen=True)
class Settings:
    """Read-only for the life of the process."""

    # what and where
    models: Annotated[Path, "the model repository, a folder of NAME/VERSION/model.onnx"] = Path("models")
    host: Annotated[str, "the address to listen on; 0.0.0.0 for every interface"] = "127.0.0.1"
    port: Annotated[int, "the port to listen on; 0 takes a free one, which the log names"] = 50051
    transport: Annotated[str, "what clients connect to: http2 is the server's own, grpc that of grpcio"] = "http2"
    workers: Annotated[int, "how many processes share the port and the store; each takes a core"] = 1
    metrics_port: Annotated[int, "the port of the Prometheus page /metrics; worker N has port + N; 0 for none"] = 0
    poll_seconds: Annotated[float, "the time between two scans of the repository for changes, in seconds"] = 2.0
    keep_versions: Annotated[int, "how many versions of each model are served, the newest first"] = 1
    # loading
    load_seconds: Annotated[float, "the time limit for loading one model file, in seconds"] = 60.0
    load_memory_mib: Annotated[float, "the memory limit for loading one model file, in MiB"] = 4_096.0
    load_at_once: Annotated[int, "how many model files are loaded at a time; one place is kept for quick ones"] = 2
    strict: Annotated[bool, "only models that are proved for every length and value are served"] = False
    cache: Annotated[Path, "the folder of proofs, which make a restart quick; off keeps none"] = Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tidegate"
    )
    cache_mib: Annotated[float, "the size limit of that folder, in MiB; the least recently used go first"] = 1_024.0
    # batching
    max_batch: Annotated[int, "the most rows in a batch: it takes one step of each sequence"] = 256
    patience_ms: Annotated[float, "the longest that a large batch may keep a new step waiting, in ms"] = 1.0
    spot_us: Annotated[float, "batches quicker than this run in the event loop, others in a thread, in us"] = 200.0
    # limits
    max_sequences: Annotated[int, "the most open sequences of one model, and of one stream"] = 65_536
    max_streams: Annotated[
        int, "the most open streams; 0 is as many as half of the memory holds messages for, up to 1024"
    ] = 0
    max_share: Annotated[float, "the part of these limits that one address may take, in percent"] = 80.0
    silent_seconds: Annotated[float, "a connection or stream that sends nothing is closed then, in seconds"] = 20.0
    max_message_mib: Annotated[float, "the largest request message, in MiB"] = 4.0
    window_mib: Annotated[float, "unread answers that may wait for one stream, in MiB"] = 4.0
    address_mib: Annotated[float, "unread answers, and likewise requests, that wait for one address, in MiB"] = 256.0
    max_answer_mib: Annotated[float, "the most that answers to Predict of one address take at a time, in MiB"] = 32.0
    max_per_owner: Annotated[int, "the most open sequences of one owner; 0 is no limit"] = 57_344
    max_per_address: Annotated[int, "the most sequences that one address has open, or resumes; 0 is no limit"] = 57_344
    # what survives
    store: Annotated[
        str,
        "where checkpoints are kept: sqlite:FILE (sqlite: alone is a file in the user's state folder), "
        "valkey://HOST:PORT/DB (valkeys:// for TLS), memory: or none",
    ] = "sqlite:"
    checkpoint_steps: Annotated[int, "a checkpoint is written at the latest after so many steps of a sequence"] = 256
    checkpoint_ms: Annotated[float, "a checkpoint is written at the latest after this time, in ms"] = 250.0
    keep_checkpoints: Annotated[
        int, "how many checkpoints of a sequence are kept, 1 to 250; it can be rewound to each"
    ] = 1
    store_seconds: Annotated[float, "how long a client waits for the store until it is told to retry, in seconds"] = 5.0
    idle_seconds: Annotated[float, "a sequence is parked after this time without a step, in seconds"] = 600.0
    retention_hours: Annotated[float, "how long a parked sequence is kept, in hours"] = 168.0
    max_parked: Annotated[int, "the most parked sequences; beyond, the longest parked are evicted"] = 1_000_000
    max_store_mib: Annotated[float, "the size limit of the store, in MiB; beyond, the longest parked are evicted"] = (
        16_384.0
    )
    max_parked_per_owner: Annotated[int, "the most parked sequences of one owner; 0 is no limit"] = 500_000
    # stopping
    grace_seconds: Annotated[
        float,
        "how long open sequences may go on after SIGTERM, in seconds; then all that is not in the store is written, "
        "for as long as the store answers within store-seconds: tens of thousands of sequences take some seconds",
    ] = 10.0
    # what looks on
    observer: Annotated[str, "an observer of all answers, MODULE:CLASS, as in server/runtime/observer.py; or none"] = (
        "none"
    )
    # logs
    log_level: Annotated[str, "debug, info, warning or error"] = "info"

    def share_of(self, limit: int) -> int:
        """How much of a limit one address may take: at least 1."""
        return max(1, int(self.max_share * limit / 100))

    @property
    def most_streams(self) -> int:
        """`max_streams`, or what stands for its 0: a message that is not whole yet is gRPC's, and takes its room."""
        if self.max_streams:
            return self.max_streams
        room = machine.memory() // (2 * self.workers) // self.max_message_bytes
        return min(max(room, _FEWEST_STREAMS), _MOST_STREAMS)

    @property
    def max_message_bytes(self) -> int:
        return int(self.max_message_mib * 2**20)

    @property
    def max_answer_bytes(self) -> int:
        return int(self.max_answer_mib * 2**20)

    @property
    def outlives(self) -> bool:
        return self.store not in ("none", "memory:")

    @property
    def cache_folder(self) -> Path | None:
        if str(self.cache) == "off":
            return None
        with suppress(RuntimeError):  # a user who has no home
            return self.cache.expanduser()
        return None

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_mib * 2**20)

    @property
    def window_bytes(self) -> int:
        return int(self.window_mib * 2**20)

    @property
    def address_bytes(self) -> int:
        return int(self.address_mib * 2**20)


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings for a command line. Exits with status 2 and a sentence if one of them is wrong."""
    parser = _parser()
    return settle(parser, vars(parser.parse_args(list(arguments))), environment)


def settle(parser: argparse.ArgumentParser, given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings for the options that a parser took, None where not given; those that it knows not keep defaults."""
    values = {}
    for f in fields(Settings):
        name = PREFIX + f.name.upper()
        if f.name not in given:
            continue
        if given[f.name] is not None:
            values[f.name] = given[f.name]
        elif name in environment:
            values[f.name] = _from_environment(parser, f, name, environment[name])
    settings = Settings(**values)
    _check(parser, settings)
    return settings


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m server",
        description="Serves the recurrent ONNX models of a folder as gRPC streams.",
        epilog=f"Each option can also be set in the environment: --max-batch is {PREFIX}MAX_BATCH. Beside these, "
        "`python -m server check FILE` says what a model file holds and whether it will be served.",
    )
    add_options(parser, [f.name for f in fields(Settings)])
    return parser


def add_options(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    for f in (f for f in fields(Settings) if f.name in names):
        if _type(f) is bool:
            parser.add_argument(f"--{f.name}", action="store_const", const=True, help=f"{_help(f)} (default: no)")
            continue
        parser.add_argument(
            f"--{f.name.replace('_', '-')}",
            type=_type(f),
            metavar=_type(f).__name__.upper(),
            help=f"{_help(f)} (default: {f.default})",
        )


def _type(f: Field[Any]) -> type[Any]:
    kind: type[Any] = get_type_hints(Settings)[f.name]
    return kind


def _help(f: Field[Any]) -> str:
    return str(get_type_hints(Settings, include_extras=True)[f.name].__metadata__[0])


def _from_environment(parser: argparse.ArgumentParser, f: Field[Any], name: str, text: str) -> object:
    try:
        return _TRUTHS[text.lower()] if _type(f) is bool else _type(f)(text)
    except (KeyError, ValueError):
        parser.error(f"{name} is {text!r}; expected {_type(f).__name__}")


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    for f in fields(Settings):
        value = getattr(settings, f.name)
        lowest = 0 if f.name in _ZERO else 1e-3
        if isinstance(value, int | float) and _type(f) is not bool and not lowest <= value < inf:  # NaN is not either
            parser.error(
                f"--{f.name.replace('_', '-')} is {value}; expected {'0 or more' if not lowest else 'more than 0'}"
            )
    if settings.max_share > 100:
        parser.error(f"--max-share is {settings.max_share}; expected at most 100")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        parser.error(f"--log-level is {settings.log_level!r}; expected debug, info, warning or error")
    if settings.transport not in ("http2", "grpc"):
        parser.error(f"--transport is {settings.transport!r}; expected http2 or grpc")
    if settings.workers > 1 and not settings.outlives:
        parser.error(
            f"--workers is {settings.workers}, but --store {settings.store} is of one process alone: no worker could "
            "go on with another's sequences; expected sqlite:FILE or valkey://HOST:PORT/DB"
        )
    if settings.keep_checkpoints > _MOST_KEPT:
        parser.error(f"--keep-checkpoints is {settings.keep_checkpoints}; expected 1 to {_MOST_KEPT}")
    if not settings.port <= 65_535:
        parser.error(f"--port is {settings.port}; expected 0 to 65535")
    last = settings.metrics_port + settings.workers - 1
    if settings.metrics_port and last > 65_535:
        parser.error(
            f"--metrics-port is {settings.metrics_port}, and {last} for the last worker; expected 0 to 65535"
            if settings.workers > 1
            else f"--metrics-port is {settings.metrics_port}; expected 0 to 65535"
        )
