"""What can be set, each with its default and unit. From the command line, else from the environment, else the default."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "TIDEGATE_"


def _setting(default: object, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """Read-only for the life of the process."""

    # what and where
    models: Path = _setting(Path("models"), "the model repository: a folder of NAME/VERSION/model.onnx")
    host: str = _setting("127.0.0.1", "the address to listen on; 0.0.0.0 for every interface")
    port: int = _setting(50051, "the port to listen on; 0 takes a free one, which the log names")
    poll_seconds: float = _setting(2.0, "how often the repository is looked through for new versions, in seconds")
    keep_versions: int = _setting(1, "how many versions of each model are served, the newest first")
    # batching
    max_batch: int = _setting(64, "the most sequences that one run of a model takes a step of")
    patience_ms: float = _setting(1.0, "the longest that a newcomer waits for a chunk that is running, in ms")
    spot_us: float = _setting(
        200.0, "a batch that takes less time is computed on the spot instead of in the engine's thread, in us"
    )
    # limits
    max_sequences: int = _setting(65_536, "the most open sequences of one model")
    max_streams: int = _setting(1_024, "the most client streams at a time")
    max_message_mib: float = _setting(4.0, "the largest message that is taken, in MiB")
    window_mib: float = _setting(4.0, "how much of answers may wait for a client that does not read, in MiB a stream")
    grace_seconds: float = _setting(10.0, "how long open sequences may go on after a request to stop, in seconds")
    # logs
    log_level: str = _setting("info", "debug, info, warning or error")

    @property
    def max_message_bytes(self) -> int:
        """`max_message_mib` in bytes."""
        return int(self.max_message_mib * 2**20)

    @property
    def window_bytes(self) -> int:
        """`window_mib` in bytes."""
        return int(self.window_mib * 2**20)


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings for a command line. Exits with status 2 and a sentence if one of them is wrong."""
    parser = _parser()
    given = vars(parser.parse_args(list(arguments)))
    values = {}
    for f in fields(Settings):
        name = PREFIX + f.name.upper()
        if given[f.name] is not None:
            values[f.name] = given[f.name]
        elif name in environment:
            values[f.name] = _from_environment(parser, f, name, environment[name])
    settings = Settings(**values)
    _check(parser, settings)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serves the recurrent ONNX models of a folder as gRPC streams.",
        epilog=f"Each option can also be set in the environment: --max-batch is {PREFIX}MAX_BATCH.",
    )
    for f in fields(Settings):
        parser.add_argument(
            f"--{f.name.replace('_', '-')}",
            type=type(f.default),
            metavar=type(f.default).__name__.removesuffix("Path") or "PATH",
            help=f"{f.metadata['help']} (default: {f.default})",
        )
    return parser


def _from_environment(parser: argparse.ArgumentParser, f: Field[Any], name: str, text: str) -> object:
    try:
        return type(f.default)(text)
    except ValueError:
        parser.error(f"{name} is {text!r}; expected {type(f.default).__name__}")


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    for f in fields(Settings):
        value = getattr(settings, f.name)
        lowest = 0 if f.name in ("port", "patience_ms", "spot_us", "grace_seconds") else 1e-3
        if isinstance(value, int | float) and value < lowest:
            parser.error(f"--{f.name.replace('_', '-')} is {value}; expected {'0 or more' if not lowest else 'more'}")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        parser.error(f"--log-level is {settings.log_level!r}; expected debug, info, warning or error")
    if not settings.port <= 65_535:
        parser.error(f"--port is {settings.port}; expected 0 to 65535")
