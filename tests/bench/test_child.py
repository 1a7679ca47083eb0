import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes.child import Child, RigError


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Child]:
    with Child("bare", ["bench.bare"], tmp_path / "bare.log") as child:
        yield child


def test_an_interrupt_while_the_watchdog_starts_leaves_no_watchdog(
    worker: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, timers = threading.Timer.start, []

    def interrupted(timer: threading.Timer) -> None:
        start(timer)
        timers.append(timer)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Timer, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.ask({"ask": "nothing"})
    (watchdog,) = timers
    watchdog.join(timeout=10)
    assert not watchdog.is_alive()


def test_a_process_that_does_not_answer_in_time_is_killed_and_the_error_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "mute.log"
    # The standard library's REPL waits for input and answers nothing on its output.
    with Child("mute", ["code", "-q"], log) as mute, pytest.raises(RigError, match=str(log)):
        mute.ask({"ask": "anything"}, patience=0.2)


def test_a_file_runs_with_the_code_of_the_checkout_that_is_given_and_not_with_its_neighbours(
    tmp_path: Path,
) -> None:
    other, beside = tmp_path / "other", tmp_path / "beside"
    for folder, name in ((other, "the other"), (beside, "the file's neighbour")):
        folder.mkdir()
        (folder / "told.py").write_text(f"NAME = {name!r}")
    file = beside / "says.py"
    file.write_text("import json, told\nfor _ in iter(input, None): print(json.dumps({'name': told.NAME}), flush=True)")
    with Child("says", [str(file)], tmp_path / "says.log", other) as child:
        assert child.ask({}) == {"name": "the other"}
