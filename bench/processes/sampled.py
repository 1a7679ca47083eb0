"""Tidegate's server, and where its processor time goes: looked at after every millisecond of it.

  python -m bench.processes.sampled FILE [options of the server]

SIGUSR1 begins to count; SIGUSR2 writes to FILE how many samples fell on each place, as JSON, and stops. The time of the
server's other threads counts where the event loop is meanwhile, unless that waits for them.
"""

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from server.__main__ import main

ROOT = Path(__file__).parents[2]
EVERY = 0.001  # seconds of processor time
LOOP = "the event loop, and the kernel's reads and waits"
WRITES = "the kernel's writes to sockets"
# What the kernel does counts at the function that calls it.
KERNEL = {
    ("server/edge/http2/sockets.py", "_sent"): WRITES,
    ("server/edge/http2/sockets.py", "_read"): LOOP,
    ("server/edge/http2/sockets.py", "_turn"): LOOP,
}
# The first that a file's path begins with is its place.
PLACES = {
    "server/edge/http2": "HTTP/2: frames, windows, calls",
    "server/edge/native": "messages: protobuf, tensors",
    "server/edge/fields": "messages: protobuf, tensors",
    "server/edge/pieces": "messages: protobuf, tensors",
    "server/edge/varints": "messages: protobuf, tensors",
    "tidegate/wire": "messages: protobuf, tensors",
    "server/edge": "a stream's turns: to take and to write",
    "server/streams": "order, windows, answers",
    "server/runtime/batcher": "batches",
    "server/runtime/computation": "batches",
    "server/runtime/scheduler": "batches",
    "server/runtime/shares": "batches",
    "server/runtime/counters": "batches",
    "server/runtime": "checks of inputs, states",
    "tidegate/columns": "checks of inputs, states",
    "stepgraph": "onnxruntime and what feeds it",
    "server/durability": "checkpoints",
    "server/stores": "checkpoints",
}


class Samples:
    """Counts, by place, from `begin` to `write`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: Counter[str] = Counter()
        self._known: dict[CodeType, str | None] = {}
        self._used: dict[int, float] = {}  # seconds of processor time, by thread, at the last sample
        self._busiest()

    def begin(self, *_: object) -> None:
        """Counts from now on."""
        self._places.clear()
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)

    def look(self, _: int, frame: FrameType | None) -> None:
        """One sample. Python looks for signals when a function begins too: then the time was its caller's."""
        place = self._place_of_stack(frame)
        other = self._busiest()
        if place == LOOP and other is not None:
            place = self._place_of_stack(other)
        self._places[place] += 1

    def _busiest(self) -> FrameType | None:
        """Where the thread beside the event loop's is that has worked most since the last sample, if one has."""
        frames = sys._current_frames()  # noqa: SLF001 # there is no other way
        frames.pop(threading.main_thread().ident or 0, None)
        used, before = {thread: time.clock_gettime(time.pthread_getcpuclockid(thread)) for thread in frames}, self._used
        self._used = used
        worked, busiest = max(((used[thread] - before.get(thread, 0.0), thread) for thread in used), default=(0.0, 0))
        return frames[busiest] if worked > EVERY / 10 else None

    def _place_of_stack(self, frame: FrameType | None) -> str:
        while frame is not None:
            begins = frame.f_lineno == frame.f_code.co_firstlineno
            place = None if begins else self._place(frame.f_code)
            if place is not None:
                return place
            frame = frame.f_back
        return LOOP

    def _place(self, code: CodeType) -> str | None:
        if code not in self._known:
            path = code.co_filename.removeprefix(f"{ROOT}/")
            self._known[code] = KERNEL.get((path, code.co_name)) or place_of(path)
        return self._known[code]

    def write(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps(self._places), encoding="utf-8")
        unfinished.replace(self._file)


def place_of(path: str) -> str | None:
    """The place of a source file; None: its time is its caller's."""
    return next((place for start, place in PLACES.items() if path.startswith(start)), None)


if __name__ == "__main__":
    samples = Samples(Path(sys.argv[1]))
    for number, handler in (
        (signal.SIGPROF, samples.look),
        (signal.SIGUSR1, samples.begin),
        (signal.SIGUSR2, samples.write),
    ):
        signal.signal(number, handler)
        signal.siginterrupt(number, False)
    del sys.argv[1]
    sys.exit(main())
