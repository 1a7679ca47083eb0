"""Sequences that outlive the command that began them, each command in a process of its own."""

import os
import re
import signal
import stat
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tidegate
from tests.tidegate.cli.test_cli import COMMAND, ROWS, TABLE, run
from tests.tidegate.fake_server import FakeServer, Store, expected
from tidegate.cli import commands
from tidegate.cli.bookmark import BadBookmark, Bookmark, Bookmarks

MORE = np.random.default_rng(1).normal(size=(7, 2)).astype(np.float32)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(store=Store()) as running:
        yield running


@pytest.fixture
def keep(tmp_path: Path) -> str:
    return str(tmp_path / "keep")


def lines(text: str) -> list[tuple[int, np.float32]]:
    """Step and output of each line of CSV."""
    cells = [line.split(",") for line in text.splitlines() if not line.startswith("step")]
    return [(int(step), np.float32(y)) for step, y in cells]


def cells(text: str) -> tuple[str, list[list[bool]]]:
    """The header of a CSV, and which cells of each line hold something."""
    header, *rest = text.splitlines()
    return header, [[bool(cell) for cell in line.split(",")] for line in rest]


def answers(rows: np.ndarray, first: int = 0) -> list[tuple[int, np.float32]]:
    return list(enumerate(expected(rows)))[first:]


def table(rows: np.ndarray) -> str:
    return "".join(f"{left},{right}\n" for left, right in rows)


def test_a_kept_sequence_goes_on_with_the_next_table(server: FakeServer, keep: str, tmp_path: Path) -> None:
    began = run(server, "stream", "toy", "--no-trace", "--keep", keep, given=TABLE)
    assert lines(began.stdout) == answers(ROWS)
    assert began.stderr == f"tidegate: 10 steps are answered; go on with: tidegate resume {keep}\n"
    assert stat.S_IMODE(Path(keep).stat().st_mode) == 0o600
    went_on = run(server, "resume", keep, "--no-trace", given=table(MORE))
    both = np.concatenate([ROWS, MORE])
    assert (went_on.returncode, lines(went_on.stdout)) == (0, answers(both, 10))
    (tmp_path / "all.csv").write_text(table(np.concatenate([both, ROWS[:2]])))
    whole = run(server, "resume", keep, str(tmp_path / "all.csv"), "--whole", "--no-trace", "--chunk", "2")
    assert lines(whole.stdout) == answers(np.concatenate([both, ROWS[:2]]), 17)
    route = Bookmark.load(keep).id.partition("-")[0]
    assert server.servicer.routes == [route] * 3


def test_a_kept_sequence_goes_on_with_a_file_as_standard_input(server: FakeServer, keep: str, tmp_path: Path) -> None:
    run(server, "stream", "toy", "--no-trace", "--keep", keep, given=TABLE)
    (tmp_path / "more.csv").write_text(table(MORE))
    command = [*COMMAND, "--server", server.address, "resume", keep]
    with (tmp_path / "more.csv").open() as file:
        went_on = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert (went_on.returncode, lines(went_on.stdout)) == (0, answers(np.concatenate([ROWS, MORE]), 10)), went_on.stderr


@pytest.mark.parametrize("shown", [[], ["--no-trace"], ["--layers", "1"], ["--every", "2"]])
def test_a_kept_sequence_shows_of_its_inside_what_was_shown_before(
    server: FakeServer, keep: str, tmp_path: Path, shown: list[str]
) -> None:
    began = run(server, "stream", "toy", *shown, "--keep", keep, given=TABLE)
    went_on = run(server, "resume", keep, given=TABLE)
    assert cells(went_on.stdout) == cells(began.stdout)
    run(server, "fork", keep, str(tmp_path / "other"))
    run(server, "move", keep, "2")
    run(server, "rewind", keep, "6")
    for kept in (keep, str(tmp_path / "other")):
        assert cells(run(server, "resume", kept, given=TABLE).stdout) == cells(began.stdout)


def test_what_a_kept_sequence_shows_can_be_changed_and_stays_so(server: FakeServer, keep: str) -> None:
    all_of_it = cells(run(server, "stream", "toy", given=TABLE).stdout)
    run(server, "stream", "toy", "--no-trace", "--keep", keep, given=TABLE)
    for change in (["--trace"], []):
        assert cells(run(server, "resume", keep, *change, given=TABLE).stdout) == all_of_it
    assert lines(run(server, "resume", keep, "--no-trace", given=TABLE).stdout)
    assert lines(run(server, "resume", keep, given=TABLE).stdout)


def test_a_file_of_an_earlier_release_which_says_nothing_of_the_inside_shows_all_of_it(
    server: FakeServer, keep: str
) -> None:
    began = run(server, "stream", "toy", "--keep", keep, given=TABLE)
    with np.load(keep) as file:
        older = {name: file[name] for name in file if name not in ("traced", "every", "layers")}
    with Path(keep).open("wb") as file:
        np.savez(file, **older)
    assert cells(run(server, "resume", keep, given=TABLE).stdout) == cells(began.stdout)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stream_that_is_stopped_by_a_signal_goes_on_where_it_was(
    server: FakeServer, keep: str, how: signal.Signals
) -> None:
    command = [*COMMAND, "--server", server.address, "stream", "toy", "--no-trace", "--keep", keep]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(table(ROWS[:5]))
        process.stdin.flush()
        seen = "".join(process.stdout.readline() for _ in range(6))
        process.send_signal(how)
        assert process.wait(120) == 128 + how
    went_on = run(server, "resume", keep, "--no-trace", given=table(ROWS[5:]))
    assert lines(seen) + lines(went_on.stdout) == answers(ROWS)


def test_what_was_sent_and_not_answered_is_answered_when_it_goes_on(server: FakeServer, keep: str) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    bookmark = Bookmark.load(keep)
    assert (bookmark.answered, bookmark.sent) == (10, 10)
    record = server.behaviour.store.records[bookmark.id]
    record.checkpoints = {step: kept for step, kept in record.checkpoints.items() if step < 9}
    unheard = Bookmark(**{**vars(bookmark), "answered": 8})
    unheard.save(keep)
    went_on = run(server, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == answers(np.concatenate([ROWS, MORE]), 8)


def test_a_state_a_fork_and_a_rewind_of_a_kept_sequence(server: FakeServer, keep: str, tmp_path: Path) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    taken = run(server, "state", keep, str(tmp_path / "state"))
    assert taken.stdout == f"toy version 1 after 10 steps: {tmp_path / 'state'}\n"
    assert tidegate.State.load(tmp_path / "state").step == 10
    both = np.concatenate([ROWS, MORE])
    from_state = run(server, "stream", "toy", "--no-trace", "--state", str(tmp_path / "state"), given=table(MORE))
    assert lines(from_state.stdout) == answers(both, 10)
    forked = run(server, "fork", keep, str(tmp_path / "other"))
    assert forked.stdout == f"toy version 1 from step 10 on: {tmp_path / 'other'}\n"
    went_on = run(server, "resume", str(tmp_path / "other"), "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == answers(both, 10)
    assert run(server, "rewind", keep, "9").stdout == "toy version 1 takes step 8 next\n"
    back = run(server, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(back.stdout) == answers(np.concatenate([ROWS[:8], MORE]), 8)


def test_a_kept_sequence_moves_to_another_version_and_goes_on_there(server: FakeServer, keep: str) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    moved = run(server, "move", keep, "2")
    assert (moved.stdout, moved.stderr) == ("toy version 2 takes step 10 next\n", "")
    bookmark = Bookmark.load(keep)
    assert (bookmark.version, bookmark.answered, bookmark.first, bookmark.sent) == (2, 10, 10, 10)
    both = np.concatenate([ROWS, MORE])
    for part in (MORE[:4], MORE[4:]):
        at = Bookmark.load(keep).answered
        went_on = run(server, "resume", keep, "--no-trace", given=table(part))
        assert lines(went_on.stdout) == list(enumerate(expected(both, moved_at=10)))[at : at + len(part)]
    assert run(server, "move", keep).stdout == "toy version 1 takes step 17 next\n"


def test_a_move_comes_after_the_answers_that_were_shown_and_before_the_others(server: FakeServer, keep: str) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    bookmark = Bookmark.load(keep)
    record = server.behaviour.store.records[bookmark.id]
    record.checkpoints = {step: kept for step, kept in record.checkpoints.items() if step < 9}
    Bookmark(**{**vars(bookmark), "answered": 9}).save(keep)
    assert run(server, "move", keep, "2").stdout == "toy version 2 takes step 9 next\n"
    went_on = run(server, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == list(enumerate(expected(np.concatenate([ROWS, MORE]), moved_at=9)))[9:]


def test_a_move_that_is_refused_leaves_the_sequence_and_its_file_as_they_were(server: FakeServer, keep: str) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    before = Path(keep).read_bytes()
    refused = run(server, "move", keep, "9")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "tidegate: there is no model 'toy' (UNKNOWN_MODEL)\n"
    assert Path(keep).read_bytes() == before
    went_on = run(server, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == answers(np.concatenate([ROWS, MORE]), 10)


def test_a_kept_sequence_is_ended_with_its_file(server: FakeServer, keep: str, tmp_path: Path) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    copy = tmp_path / "copy"
    copy.write_bytes(Path(keep).read_bytes())
    assert run(server, "end", keep).returncode == 0
    assert not Path(keep).exists()
    late = run(server, "resume", str(copy), given=TABLE)
    assert (late.returncode, late.stdout) == (1, "")
    assert re.fullmatch(r"tidegate: [0-9a-f]+-0 is no more \(SEQUENCE_ENDED\)\n", late.stderr)


def test_a_server_that_was_lost_before_its_first_write_gets_everything_again(keep: str) -> None:
    store = Store()
    with FakeServer(store=store, every=0) as first:
        run(first, "stream", "toy", "--keep", keep, given=TABLE)
    store.records.clear()
    with FakeServer(store=store) as second:
        went_on = run(second, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == answers(np.concatenate([ROWS, MORE]), 10)


def test_a_server_without_checkpoints_keeps_nothing_and_says_so(keep: str) -> None:
    with FakeServer() as plain:
        done = run(plain, "stream", "toy", "--keep", keep, given=TABLE)
    assert (done.returncode, done.stdout) == (1, "")
    assert "keeps no checkpoints" in done.stderr
    assert not Path(keep).exists()


def test_a_file_that_is_no_bookmark_says_so(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for path, words in (
        (tmp_path / "text", "is not a file that `tidegate stream --keep` wrote"),
        (tmp_path / "none", "No such file"),
    ):
        done = run(server, "resume", str(path))
        assert done.returncode == 1
        assert words in done.stderr


def test_a_bookmark_is_written_once_a_second_and_comes_back_as_it_was(tmp_path: Path) -> None:
    times = iter([0.0, 0.5, 1.0, 1.0, 1.9])
    written: list[int] = []
    held: list[int] = []
    mark = Bookmark("here", "toy", 1, "k0", "secret", 4, 2, inputs={"x": MORE})

    def now(answered: int) -> Bookmark:
        written.append(answered)
        return mark

    bookmarks = Bookmarks(str(tmp_path / "mark"), now, held.append, clock=lambda: next(times))
    for step in range(3):
        bookmarks.shown(step)
    assert written == held == [2]
    loaded = Bookmark.load(tmp_path / "mark")
    np.testing.assert_array_equal(loaded.inputs["x"], MORE)
    assert {**vars(loaded), "inputs": None} == {**vars(mark), "inputs": None}
    assert "secret" not in repr(loaded)
    assert loaded.at(3).sent == 3
    with pytest.raises(BadBookmark, match="from step 1 on again"):
        loaded.since(1)


def test_keeping_a_sequence_never_writes_over_a_file(server: FakeServer, keep: str, tmp_path: Path) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    precious = tmp_path / "precious.csv"
    precious.write_text(TABLE)
    before = Path(keep).read_bytes()
    for file, words in ((keep, "keeps a sequence already"), (str(precious), "exists and would be lost")):
        for command in (["stream", "toy", "--keep", file], ["fork", keep, file]):
            done = run(server, *command, given=TABLE)
            assert (done.returncode, done.stdout) == (1, "")
            assert words in done.stderr
    for file in (keep, str(precious)):
        done = run(server, "state", keep, file)
        assert (done.returncode, done.stdout) == (1, "")
        assert "exists and is no state" in done.stderr
    assert run(server, "stream", "toy", "--keep", str(tmp_path / "no" / "keep")).returncode == 1
    assert (Path(keep).read_bytes(), precious.read_text()) == (before, TABLE)
    assert server.servicer.requests.count("open") == 1
    assert "resume" not in server.servicer.requests


def test_a_state_may_be_written_over_an_earlier_one(server: FakeServer, keep: str, tmp_path: Path) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    for rows in (0, 7):
        run(server, "resume", keep, given=table(MORE[:rows]))
        assert run(server, "state", keep, str(tmp_path / "state")).returncode == 0
        assert tidegate.State.load(tmp_path / "state").step == 10 + rows


def test_a_table_that_cannot_be_read_opens_and_keeps_nothing(server: FakeServer, keep: str, tmp_path: Path) -> None:
    (tmp_path / "narrow.csv").write_text("1\n2\n")
    for file in ("none.csv", "narrow.csv"):
        assert run(server, "stream", "toy", "--keep", keep, str(tmp_path / file)).returncode == 1
    assert not Path(keep).exists()
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    taken = server.servicer.requests.count("resume")
    assert run(server, "resume", keep, str(tmp_path / "none.csv")).returncode == 1
    assert server.servicer.requests.count("resume") == taken
    assert server.servicer.requests.count("open") == 1


def test_who_was_overtaken_leaves_the_file_to_who_went_on(server: FakeServer, keep: str) -> None:
    command = [*COMMAND, "--server", server.address, "stream", "toy", "--no-trace", "--keep", keep]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as slow:
        assert slow.stdin is not None
        assert slow.stdout is not None
        slow.stdin.write(table(ROWS[:3]))
        slow.stdin.flush()
        _ = [slow.stdout.readline() for _ in range(4)]
        went_on = run(server, "resume", keep, "--whole", "--no-trace", given=table(ROWS))
        assert lines(went_on.stdout)[-1][0] == 9
        left = Path(keep).read_bytes()
        _, said = slow.communicate(table(MORE[:1]), timeout=240)
    assert slow.returncode == 1
    assert "TAKEN_OVER" in said
    assert "go on with" not in said
    assert Path(keep).read_bytes() == left


def test_what_was_sent_and_not_answered_when_the_server_was_lost_is_said(server: FakeServer, keep: str) -> None:
    command = [*COMMAND, "--server", server.address, "--timeout", "8", "stream", "toy", "--no-trace", "--keep", keep]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as stream:
        assert stream.stdin is not None
        assert stream.stdout is not None
        stream.stdin.write(table(ROWS[:3]))
        stream.stdin.flush()
        _ = [stream.stdout.readline() for _ in range(4)]
        server.behaviour.silent = True
        _, said = stream.communicate(table(ROWS[3:4]), timeout=240)
    assert said.splitlines()[0] == (
        f"tidegate: 3 steps are answered, 1 more were sent and are answered first; go on with: tidegate resume {keep}"
    )
    server.behaviour.silent = False
    went_on = run(server, "resume", keep, "--no-trace", given=table(ROWS[4:]))
    assert lines(went_on.stdout) == answers(ROWS, 3)


def test_ending_a_sequence_that_is_no_more_removes_its_file_and_says_why(server: FakeServer, keep: str) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    before = Path(keep).read_bytes()
    run(server, "end", keep)
    Path(keep).write_bytes(before)
    done = run(server, "end", keep)
    assert done.returncode == 0
    assert "it had ended before: " in done.stderr
    assert not Path(keep).exists()


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_rewind_that_is_stopped_at_any_moment_leaves_a_file_that_is_taken_up_where_it_goes_back_to(
    server: FakeServer, keep: str, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool
) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    run(server, "resume", keep, given=table(MORE))  # so that the file's inputs begin after the step to go back to
    record = server.behaviour.store.records[Bookmark.load(keep).id]
    h = np.zeros(3)
    for row in ROWS[:4]:
        h = h / 2 + row.sum() + np.arange(3)
    record.keep = 100  # what the fake writes when the client is gone must not remove the step to go back to
    record.checkpoints[4] = (1, h)
    ask = tidegate.Sequence.rewind

    def stopped(sequence: tidegate.Sequence, step: int) -> None:
        if carried_out:
            ask(sequence, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(tidegate.Sequence, "rewind", stopped)
    with tidegate.connect(server.address) as client, pytest.raises(KeyboardInterrupt):
        commands.rewind(client, Namespace(bookmark=Bookmark.load(keep), step=5, kept=keep))
    went_on = run(server, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == answers(np.concatenate([ROWS[:4], MORE]), 4)
    assert Bookmark.load(keep).rewinding is None


def test_a_rewind_that_was_refused_or_never_came_through_leaves_the_sequence_where_it_was(
    server: FakeServer, keep: str
) -> None:
    run(server, "stream", "toy", "--keep", keep, given=TABLE)
    before = Bookmark.load(keep)
    record = server.behaviour.store.records[before.id]
    record.checkpoints = {step: kept for step, kept in record.checkpoints.items() if step > 2}
    assert "CHECKPOINT_GONE" in run(server, "rewind", keep, "2").stderr
    assert Bookmark.load(keep).rewinding is None
    replace(before, rewinding=2).save(keep)
    went_on = run(server, "resume", keep, "--no-trace", given=table(MORE))
    assert lines(went_on.stdout) == answers(np.concatenate([ROWS, MORE]), 10)


def test_the_file_of_a_kept_sequence_is_its_owners_alone_whatever_lies_beside_it(tmp_path: Path) -> None:
    bookmark = Bookmark(server="s", model="m", version=1, id="i", token="secret")
    other = tmp_path / "other"
    other.write_text("precious")
    beside = tmp_path / "keep.new"
    before = os.umask(0)
    try:
        beside.symlink_to(other)
        bookmark.save(tmp_path / "keep")
        beside.unlink()
        beside.touch(0o666)
        bookmark.save(tmp_path / "keep")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keep").stat().st_mode) == 0o600
    assert other.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep", "keep.new", "other"]


def test_a_file_that_cannot_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    bookmark = Bookmark(server="s", model="m", version=1, id="i", token="secret")
    bookmark.save(tmp_path / "keep")
    with pytest.raises(ValueError, match="Object arrays"):
        replace(bookmark, answered=1, inputs={"x": np.array([object()])}).save(tmp_path / "keep")
    assert Bookmark.load(tmp_path / "keep").answered == 0
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
