"""The networks that are measured, as files. A process of its own, which has torch, writes those that are missing."""

import subprocess
import sys
from pathlib import Path

from bench.processes.cache import Cache
from bench.scenario import HIDDEN_SIZES

PATIENCE = 300.0  # seconds


def ready() -> Cache:
    """The folder of this checkout, with all of them."""
    cache = Cache(Path(".bench").resolve())
    write_missing(cache)
    return cache


def write_missing(cache: Cache) -> None:
    """All of them are there afterwards."""
    files = [file(hidden) for hidden in HIDDEN_SIZES for file in (cache.served_file, cache.afternoon_file)]
    if not all(file.exists() for file in files):
        subprocess.run([sys.executable, "-m", "bench.models", str(cache.root)], check=True, timeout=PATIENCE)
