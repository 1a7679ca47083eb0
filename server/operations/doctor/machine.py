"""Settings, and what the machine gives: memory, processors, descriptors, clock, packages."""

import ctypes
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from server import machine
from server.operations import connections, exposure
from server.operations.doctor.finding import FAULT, OK, WARNING, Finding
from server.options import PREFIX
from server.settings import Settings

# what clients and Compose read, and the server does not
_OTHERS = (
    "CA",
    "CERT",
    "KEY",
    "TOKEN",
    "TOKEN_FILE",
    "SERVER",
    "RUNS",
    "REPLICAS_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
)
_UNSYNCHRONISED = 0x40  # of adjtimex(2)
_FEW = 1_024  # connections
_LITTLE = 2**29  # bytes of memory
_BUILT = 1_735_689_600  # 2025, in seconds since 1970: no clock that is right is before


def configuration(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    changed = [f"--{f.name.replace('_', '-')}" for f in fields(Settings) if getattr(settings, f.name) != f.default]
    yield Finding(OK, "settings", f"set: {', '.join(changed)}" if changed else "all have their defaults")
    known = {PREFIX + f.name.upper() for f in fields(Settings)} | {PREFIX + name for name in _OTHERS}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name, known, 1)
            yield Finding(
                WARNING,
                "settings",
                f"{name} is set, and is no setting",
                f"did you mean {close[0]}?" if close else "unset it; docs/settings.md lists all settings",
            )
    try:
        exposure.check(settings)
    except OSError as error:
        yield Finding(FAULT, "exposure", str(error), "see docs/secure.md")
    else:
        reach = "this machine" if exposure.is_here(settings.host) else "other machines"
        yield Finding(OK, "exposure", f"{settings.host} can be reached from {reach}")
    yield from _packages(settings, environment)


def _packages(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    if settings.otlp_endpoint or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        if find_spec("opentelemetry") is None:
            yield Finding(FAULT, "tracing", "OpenTelemetry is not installed", "pip install --group tracing")
        else:
            yield Finding(OK, "tracing", "OpenTelemetry is installed")
    if settings.observer != "none":
        module, _, kind = settings.observer.partition(":")
        try:
            getattr(import_module(module), kind)
        except (ImportError, AttributeError, ValueError) as error:
            yield Finding(
                FAULT, "observer", f"{settings.observer}: {error}", "expected MODULE:CLASS that is importable"
            )


def resources(settings: Settings) -> Iterator[Finding]:
    memory, loading = machine.memory(), settings.load_memory_mib * 2**20
    text = f"{memory / 2**30:.1f} GiB; at most {settings.most_streams} streams"
    if memory < _LITTLE:
        yield Finding(WARNING, "memory", text, "expected 0.5 GiB or more")
    elif loading > memory:
        mend = f"--load-memory-mib is {settings.load_memory_mib:g}: a large file may take all; lower it"
        yield Finding(WARNING, "memory", text, mend)
    else:
        yield Finding(OK, "memory", text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if settings.workers > cores:
        yield Finding(WARNING, "processors", f"{cores} for {settings.workers} workers", "lower --workers")
    else:
        yield Finding(OK, "processors", f"{cores}")
    connections.raise_descriptors()
    most = connections.most_connections()
    text = f"enough for {most} connections"
    yield (
        Finding(OK, "descriptors", text)
        if most >= _FEW
        else Finding(WARNING, "descriptors", text, "raise `ulimit -n`, or LimitNOFILE of systemd")
    )
    yield _clock()


def _clock() -> Finding:
    if time.time() < _BUILT:
        return Finding(
            FAULT, "clock", f"it says {time.strftime('%Y-%m-%d')}", "set the clock: certificates look expired"
        )
    with suppress(OSError, AttributeError):
        libc, timex = ctypes.CDLL(None), (ctypes.c_long * 64)()  # modes 0 at the beginning: nothing is changed
        libc.adjtimex(timex)
        status = (ctypes.c_int * 128).from_buffer(timex)[10]  # after modes, offset, freq, maxerror, esterror
        if status & _UNSYNCHRONISED:
            return Finding(
                WARNING, "clock", "no NTP sets it", "run NTP: servers that share a store compare their times"
            )
    return Finding(OK, "clock", "NTP sets it")
