"""Tidegate's server, and how long the turns of its event loop take, in processor time of the loop's thread.

  python -m bench.processes.turns FILE [options of the server]

SIGUSR1 begins to measure; SIGUSR2 writes to FILE, as JSON, how long the longest turn took, in ms, and where it was
after each ms of it, and stops. In between the loop does not sleep, so that each of its turns is seen.
"""

import asyncio
import gc
import json
import signal
import sys
from pathlib import Path
from time import thread_time
from types import FrameType

from server.__main__ import main

ROOT = Path(__file__).parents[2]
EVERY = 0.001  # seconds
DEEPEST = 4  # functions of ours that a place names


class Turns:
    """Measures, from `begin` to `write`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._measures = False
        self._began = self._longest = self._collects_since = 0.0
        self._seen: list[str] = []  # in this turn
        self._where: list[str] = []  # in the longest one

    def begin(self, *_: object) -> None:
        """Measures from now on."""
        self._measures, self._longest, self._where = True, 0.0, []
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon_threadsafe(self._first)

    def _first(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
        self._began = thread_time()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        took = thread_time() - self._began
        if took > self._longest:
            self._longest, self._where = took, self._seen
        self._seen = []
        if self._measures:
            self._loop.call_soon(self._turn)
        self._began = thread_time()

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """Notes a collection of garbage: no signal is handled meanwhile. See gc.callbacks."""
        if phase == "start":
            self._collects_since = thread_time()
        else:
            took = (thread_time() - self._collects_since) * 1e3
            self._seen.append(f"a collection of generation {info['generation']} that took {took:.1f} ms")

    def look(self, _: int, frame: FrameType | None) -> None:
        """Notes where this turn is."""
        names = list[str]()
        while frame is not None and len(names) < DEEPEST:
            path = frame.f_code.co_filename
            if path.startswith(str(ROOT)) and path != __file__:
                names.append(f"{path.removeprefix(f'{ROOT}/')}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
        self._seen.append(f"{(thread_time() - self._began) * 1e3:4.1f} ms: {' < '.join(names)}")

    def write(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._measures = False
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps({"longest": self._longest * 1e3, "where": self._where}), encoding="utf-8")
        unfinished.replace(self._file)


if __name__ == "__main__":
    turns = Turns(Path(sys.argv[1]))
    gc.callbacks.append(turns.collected)
    for number, handler in (
        (signal.SIGALRM, turns.look),
        (signal.SIGUSR1, turns.begin),
        (signal.SIGUSR2, turns.write),
    ):
        signal.signal(number, handler)
        signal.siginterrupt(number, False)
    del sys.argv[1]
    sys.exit(main())
