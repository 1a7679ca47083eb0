"""What can be set: values, each with its default, its unit and a sentence. How they are read is `options`'."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from server import machine

T = TypeVar("T")

_FEWEST_STREAMS, _MOST_STREAMS = 16, 1_024  # where it is left to the server
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tidegate")


@dataclass(frozen=True)
class Option:
    """How a setting is shown, and which values it may have.

    Args:
        value: what stands for its value in `--help`, such as PORT; several are the words that it may be.
        text: a sentence.
        least: of a number; more than 0 unless said otherwise.
        most: of a number.
        shown: its default in words, where that depends on the machine.
    """

    value: str | tuple[str, ...]
    text: str
    least: float | None = None
    most: float | None = None
    shown: str = ""


def option(
    default: T,
    value: str | tuple[str, ...],
    text: str,
    least: float | None = None,
    most: float | None = None,
    shown: str = "",
) -> T:
    """A setting's default, with its `Option` beside it."""
    made: T = field(default=default, metadata={"option": Option(value, text, least, most, shown)})
    return made


@dataclass(frozen=True)
class Settings:
    """Read-only for the life of the process."""

    # what and where
    models: Path = option(Path("models"), "FOLDER", "the model repository, a folder of NAME/VERSION/model.onnx")
    host: str = option(
        "127.0.0.1",
        "ADDRESS",
        "the address to listen on; 0.0.0.0 for every interface, unix:PATH for a Unix socket of this user alone",
    )
    port: int = option(50051, "PORT", "the port to listen on; 0 takes a free one, which the log names", 0, 65_535)
    transport: str = option(
        "http2",
        ("http2", "grpc"),
        "what clients connect to: http2 is the server's own, for Linux, grpc that of grpcio",
    )
    workers: int = option(1, "COUNT", "how many processes share the port and the store; each takes a core")
    poll_seconds: float = option(2.0, "SECONDS", "the time between two looks for changed files")
    keep_versions: int = option(1, "COUNT", "how many versions of each model are served, the newest first")
    # who may connect
    tls_cert: str = option(
        "none",
        "FILE",
        "the server's certificate for TLS, in PEM form with those it depends on; read anew if it changes",
    )
    tls_key: str = option("none", "FILE", "the private key of that certificate, in PEM form without a password")
    tls_client_ca: str = option(
        "none", "FILE", "the issuers of certificates that clients must show; none: a client needs no certificate"
    )
    insecure: bool = option(
        False, "", "listens on addresses of a network also without TLS, or without asking who connects"
    )
    tokens: str = option(
        "none",
        "FILE",
        "who may do what: a file that `python -m server token add` writes; none lets everybody predict, and clients of "
        "this machine observe and administer",
    )
    # loading
    load_seconds: float = option(60.0, "SECONDS", "the time limit for loading one model file")
    load_memory_mib: float = option(4_096.0, "MIB", "the memory limit for loading one model file")
    load_at_once: int = option(
        2, "COUNT", "how many model files are loaded at a time; one place is kept for quick ones"
    )
    strict: bool = option(False, "", "only models that are proved for every length and value are served")
    cache: Path = option(
        _CACHE,
        "FOLDER",
        "the folder of proofs, which make a restart quick; off keeps none",
        shown="$XDG_CACHE_HOME/tidegate, else ~/.cache/tidegate",
    )
    cache_mib: float = option(1_024.0, "MIB", "the size limit of that folder; the least recently used go first")
    # batching
    max_batch: int = option(256, "ROWS", "the most rows in a batch: it takes one step of each sequence")
    patience_ms: float = option(1.0, "MS", "the longest that a large batch may keep a new step waiting", 0)
    spot_us: float = option(500.0, "US", "batches quicker than this run in the event loop, others in a thread", 0)
    # limits
    max_sequences: int = option(65_536, "COUNT", "the most open sequences of one model, and of one stream")
    max_streams: int = option(
        0, "COUNT", "the most open streams; 0 is as many as half of the memory holds messages for, up to 1024", 0
    )
    max_share: float = option(80.0, "PERCENT", "the part of streams, calls and connections of one address", most=100)
    silent_seconds: float = option(20.0, "SECONDS", "a connection or stream that sends nothing is closed then")
    max_message_mib: float = option(4.0, "MIB", "the largest request message")
    window_mib: float = option(4.0, "MIB", "unread answers that may wait for one stream")
    address_mib: float = option(256.0, "MIB", "unread answers, and likewise requests, that wait for one address")
    max_answer_mib: float = option(32.0, "MIB", "the most that answers to Predict of one address take at a time")
    max_per_owner: int = option(57_344, "COUNT", "the most open sequences of one owner; 0 is no limit", 0)
    max_per_address: int = option(
        57_344,
        "COUNT",
        "the most sequences that one address has open, or resumes; 0 is no limit. Where it is less than "
        "--max-sequences, the last eighth of these is for who has few",
        0,
    )
    # what survives
    store: str = option(
        "sqlite:",
        "STORE",
        "where checkpoints are kept: sqlite:FILE (sqlite: alone is a file in the user's state folder), "
        "valkey://HOST:PORT/DB (valkeys:// for TLS), memory: or none",
    )
    checkpoint_steps: int = option(
        256, "STEPS", "a checkpoint is written at the latest after so many steps of a sequence"
    )
    checkpoint_ms: float = option(250.0, "MS", "a checkpoint is written at the latest after this time")
    keep_checkpoints: int = option(
        1,
        "COUNT",
        "how many checkpoints of a sequence are kept, 1 to 250; it can be rewound to each",
        least=1,
        most=250,  # a store has room for 256 of a sequence, and some are kept for who resumes
    )
    store_seconds: float = option(5.0, "SECONDS", "how long a client waits for the store until it is told to retry")
    idle_seconds: float = option(600.0, "SECONDS", "a sequence is parked after this time without a step")
    retention_hours: float = option(168.0, "HOURS", "how long a parked sequence is kept")
    max_parked: int = option(1_000_000, "COUNT", "the most parked sequences; beyond, the longest parked are evicted")
    max_store_mib: float = option(
        16_384.0, "MIB", "the size limit of the store; beyond, the longest parked are evicted"
    )
    max_parked_per_owner: int = option(500_000, "COUNT", "the most parked sequences of one owner; 0 is no limit", 0)
    # stopping
    grace_seconds: float = option(
        10.0,
        "SECONDS",
        "how long open sequences may go on after SIGTERM; then all that is not in the store is written, "
        "for as long as the store answers within store-seconds: tens of thousands of sequences take some seconds",
        0,
    )
    # what looks on
    log_level: str = option("info", ("debug", "info", "warning", "error"), "the least serious of what is logged")
    log_format: str = option("text", ("text", "json"), "lines for people, or a JSON object a line")
    metrics_port: int = option(
        0, "PORT", "the port of the Prometheus page /metrics; worker N has port + N; 0 for none", 0, 65_535
    )
    metrics_host: str = option("", "ADDRESS", "the address that this page listens on", shown="that of --host")
    otlp_endpoint: str = option(
        "",
        "URL",
        "where OpenTelemetry's spans go, OTLP over HTTP, as in http://localhost:4318; without it none are made",
        shown="$OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    observer: str = option(
        "none", "MODULE:CLASS", "an observer of all answers, as in server/runtime/observer.py; or none"
    )

    def share_of(self, limit: int) -> int:
        """How much of a limit one address may take: at least 1."""
        return max(1, int(self.max_share * limit / 100))

    @property
    def has_tls(self) -> bool:
        return self.tls_cert != "none"

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
