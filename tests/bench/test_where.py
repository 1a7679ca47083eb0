"""Where a step's time goes: each file of the server has one place."""

import sys
from pathlib import Path
from threading import Event, Thread
from time import thread_time

import pytest

from bench.processes.sampled import EVERY, KERNEL, LOOP, PLACES, ROOT, Samples, place_of


def test_every_module_that_a_step_passes_through_has_a_place() -> None:
    rooms = ("server/edge", "server/streams", "server/runtime", "server/durability", "server/stores", "stepgraph")
    files = [str(path.relative_to(ROOT)) for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert files
    assert all(place_of(path) for path in files)


def test_every_place_is_one_of_files_that_are_there() -> None:
    for start in PLACES:
        assert (ROOT / start).is_dir() or (ROOT / start).with_suffix(".py").is_file(), start


def test_what_the_kernel_does_counts_at_functions_that_are_there() -> None:
    for file, name in KERNEL:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_time_in_which_the_event_loop_waits_is_that_of_the_thread_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACES, "tests/bench", "here")
    begun, go_on, samples = Event(), Event(), Samples(tmp_path / "counts.json")

    def work() -> None:
        while not go_on.is_set():
            if thread_time() > 10 * EVERY:
                begun.set()

    thread, waits = Thread(target=work), Thread(target=go_on.wait)
    thread.start()
    waits.start()
    begun.wait()
    samples.look(0, None)
    go_on.set()
    thread.join()
    waits.join()
    samples.write()
    assert (tmp_path / "counts.json").read_text(encoding="utf-8") == '{"here": 1}'


def test_time_outside_of_the_server_is_the_event_loops(tmp_path: Path) -> None:
    assert place_of(__file__) is None
    samples = Samples(tmp_path / "counts.json")
    samples.look(0, sys._getframe())
    samples.write()
    assert (tmp_path / "counts.json").read_text(encoding="utf-8") == f'{{"{LOOP}": 1}}'


def test_time_counts_where_the_innermost_function_of_the_server_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACES, "tests/bench", "here")
    samples = Samples(tmp_path / "counts.json")
    samples.look(0, sys._getframe())
    samples.write()
    assert (tmp_path / "counts.json").read_text(encoding="utf-8") == '{"here": 1}'
