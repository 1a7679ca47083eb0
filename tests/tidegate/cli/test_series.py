"""A table of several series: a sequence for each, answers in the order of the rows, kept and taken up by series."""

import csv
import io
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import tidegate
from tests.tidegate.cli.test_cli import COMMAND, in_terminal, run
from tests.tidegate.fake_server import FakeServer, Store
from tidegate.cli.bookmark import Bookmark
from tidegate.cli.series import Sequences

SERIES = [("1", "a"), ("1", "b"), ("2", "a")]
ORDER = np.random.default_rng(3).integers(3, size=40).tolist()  # the series of each row
ROWS = np.random.default_rng(4).normal(size=(40, 2)).astype(np.float32)
STREAM = ("stream", "toy", "--version", "4", "--no-trace")


def table(first: int = 0, last: int = len(ORDER)) -> str:
    rows = (f"{','.join(SERIES[at])},{left},{right}\n" for at, (left, right) in zip(ORDER, ROWS, strict=True))
    return "line,machine,left,right\n" + "".join([*rows][first:last])


def expected(order: list[int] = ORDER) -> list[tuple[str, ...]]:
    """What is printed of each row: its series, the step in it, the sum of a state of its own."""
    h, steps, found = np.zeros((3, 3)), [count() for _ in SERIES], []
    for at, row in zip(order, ROWS, strict=False):
        h[at] = h[at] / 16 + float(row.sum()) + np.arange(3)
        found.append((*SERIES[at], str(next(steps[at])), str(np.float32(h[at].sum()))))
    return found


def printed(text: str) -> list[tuple[str, ...]]:
    header, *lines = csv.reader(io.StringIO(text))
    assert header == ["line", "machine", "step", "y"]
    return [tuple(line) for line in lines]


@pytest.fixture
def keeping() -> Iterator[FakeServer]:
    with FakeServer(store=Store()) as running:
        yield running


@pytest.fixture
def keep(tmp_path: Path) -> str:
    return str(tmp_path / "machines")


@pytest.mark.parametrize("more", [[], ["--chunk", "7"]], ids=["single steps", "chunks"])
@pytest.mark.parametrize("live", [False, True])
def test_each_series_has_a_sequence_of_its_own_and_answers_come_in_the_order_of_the_rows(
    server: FakeServer, tmp_path: Path, more: list[str], *, live: bool
) -> None:
    (tmp_path / "t.csv").write_text(table())
    done = run(server, *STREAM, *more, "-" if live else str(tmp_path / "t.csv"), given=table())
    assert (done.returncode, done.stderr) == (0, "")
    assert printed(done.stdout) == expected()
    assert server.servicer.requests.count("open") == len(SERIES)


def test_json_lines_and_drawings_name_the_series_of_each_answer(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table())
    lines = run(server, *STREAM, "--output", "jsonl", given=table()).stdout.splitlines()
    names = [dict(zip(("line", "machine"), SERIES[at], strict=True)) for at in ORDER]
    assert [json.loads(line)["series"] for line in lines] == names
    drawn = in_terminal(server, "stream", "toy", "--version", "4", str(tmp_path / "t.csv"), NO_COLOR="1").splitlines()
    assert drawn[-41].startswith("line, machi~  step")
    assert [line[:12].strip() for line in drawn[-40:]] == [", ".join(SERIES[at]) for at in ORDER]
    assert max(map(len, drawn)) <= 80


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("line,left,right\n1,2,3\n", "line 1: there is no column machine, whose values tell the model's series apart"),
        ("line,machine,left,right\n1,a,2,3\n2,,2,3\n", "line 3: column 'machine' holds '', which names no series"),
        ('{"left": 1, "right": 2, "line": 1}', "line 1: there is no column machine"),
        ("machine,line,left\na,1,2\n", "line 1: there is no column right"),
    ],
)
def test_a_table_that_does_not_tell_series_apart_says_where(server: FakeServer, given: str, words: str) -> None:
    form = ["--input", "json"] if given.startswith("{") else []
    done = run(server, *STREAM, *form, given=given)
    assert done.returncode == 1
    assert f"tidegate: {words}" in done.stderr


def test_rows_without_names_are_those_of_one_series_which_is_said(server: FakeServer) -> None:
    done = run(server, *STREAM, given="1,2\n3,4\n")
    assert done.stdout.splitlines()[0] == "step,y"
    assert done.stderr == (
        "tidegate: the table has no names of columns: all of its rows are taken for those of one series\n"
    )


def test_a_series_that_was_ended_to_make_room_goes_on_from_its_state(client: tidegate.Client) -> None:
    opened: list[tidegate.Sequence] = []

    def begin(state: tidegate.State | None, timeout: float | None) -> tidegate.Sequence:
        opened.append(client.sequence("toy", version=4, state=state, trace=False, timeout=timeout))
        return opened[-1]

    found = []
    with Sequences(begin, most=2) as sequences:
        for at, row in zip(ORDER, ROWS, strict=True):
            answer = sequences.of(SERIES[at]).step(row)
            found.append((*SERIES[at], str(answer.step), str(answer.outputs["y"][0])))
    assert found == expected()
    assert len(opened) > len(SERIES)


def test_where_a_server_has_room_for_fewer_no_more_are_open_at_a_time() -> None:
    open_now: set[str] = set()

    class Closing:
        def __init__(self, name: str) -> None:
            self.name = name
            open_now.add(name)

        def state(self) -> str:
            return self.name

        def close(self) -> None:
            open_now.remove(self.name)

    names, waited = count(), []

    def begin(state: str | None, timeout: float | None) -> Closing:
        if len(open_now) == 2:
            waited.append(timeout)
            raise tidegate.ServerBusy("TOO_MANY_OF_OWNER", "two are open")
        if state == "s1" and timeout:
            raise tidegate.TimedOut("the server is slow")
        return Closing(state or f"s{next(names)}")

    sequences = Sequences(begin)  # type: ignore[arg-type] # what is asked of a sequence
    found = [sequences.of((name,)).name for name in "abcabcaac"]
    assert found == [f"s{'abc'.index(name)}" for name in "abcabcaac"]
    assert waited == [2.0]


def test_a_state_is_that_of_one_series(server: FakeServer, tmp_path: Path) -> None:
    with tidegate.connect(server.address) as client, client.sequence("toy", version=4) as sequence:
        sequence.step(ROWS[0])
        sequence.state().save(tmp_path / "state")
    rows = "line,machine,left,right\n1,a,1,2\n1,a,1,2\n"
    done = run(server, *STREAM, "--state", str(tmp_path / "state"), given=rows)
    assert [line[2] for line in printed(done.stdout)] == ["1", "2"]
    done = run(server, *STREAM, "--state", str(tmp_path / "state"), given=rows + "2,a,1,2\n")
    assert done.returncode == 1
    assert "tidegate: --state is the state of one series, and the table has 1, a and 2, a\n" in done.stderr


@pytest.mark.parametrize("chunk", ["1", "4"])
def test_kept_series_go_on_with_the_next_table_and_new_ones_begin(keeping: FakeServer, keep: str, chunk: str) -> None:
    first = next(at for at in range(len(ORDER)) if len(set(ORDER[:at])) == 3) - 1  # rows with two series
    began = run(keeping, *STREAM, "--keep", keep, "--chunk", chunk, given=table(0, first))
    assert began.stderr == f"tidegate: {first} steps of 2 series are answered; go on with: tidegate resume {keep}\n"
    assert len([*Path(keep).iterdir()]) == 2
    went_on = run(keeping, "resume", keep, "--chunk", chunk, given=table(first, 30))
    assert len([*Path(keep).iterdir()]) == 3
    whole = run(keeping, "resume", keep, "--whole", "--chunk", chunk, given=table())
    assert printed(began.stdout) + printed(went_on.stdout) + printed(whole.stdout) == expected()


def test_series_that_are_stopped_by_a_signal_go_on_where_they_were(keeping: FakeServer, keep: str) -> None:
    command = [*COMMAND, "--server", keeping.address, *STREAM, "--keep", keep]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(table(0, 20))
        process.stdin.flush()
        seen = "".join(process.stdout.readline() for _ in range(21))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    went_on = run(keeping, "resume", keep, given=table(20))
    assert printed(seen) + printed(went_on.stdout) == expected()


def test_what_was_sent_of_a_series_and_not_answered_is_answered_first(keeping: FakeServer, keep: str) -> None:
    run(keeping, *STREAM, "--keep", keep, given=table(0, 20))
    path = Path(keep) / "1,b.seq"
    bookmark = Bookmark.load(path)
    record = keeping.behaviour.store.records[bookmark.id]
    record.checkpoints = {step: kept for step, kept in record.checkpoints.items() if step < bookmark.answered}
    Bookmark(**{**vars(bookmark), "answered": bookmark.answered - 1}).save(path)
    went_on = printed(run(keeping, "resume", keep, given=table(20)).stdout)
    last = max(at for at in range(20) if ORDER[at] == SERIES.index(("1", "b")))
    assert went_on == [expected()[last], *expected()[20:]]


def test_one_of_the_series_is_taken_up_by_its_own_file(keeping: FakeServer, keep: str, tmp_path: Path) -> None:
    run(keeping, *STREAM, "--keep", keep, given=table())
    file = f"{keep}/2,a.seq"
    steps = ORDER.count(2)
    rows = "line,machine,left,right\n2,a,1,2\n"
    assert [line[:3] for line in printed(run(keeping, "resume", file, given=rows).stdout)] == [("2", "a", str(steps))]
    done = run(keeping, "resume", file, given=rows + "1,a,1,2\n")
    assert f"tidegate: a row is of 1, a, and {file} keeps the sequence of 2, a\n" in done.stderr
    assert run(keeping, "fork", file, str(tmp_path / "other")).returncode == 0
    assert Bookmark.load(tmp_path / "other").series == ("2", "a")
    for command in (["state", keep, "x.npz"], ["rewind", keep, "3"], ["move", keep], ["fork", keep, "x"]):
        done = run(keeping, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.search(r"keeps 3 series; name the file of one of them, such as .*/1,a\.seq\n", done.stderr)
    done = run(keeping, "resume", keep, given="1,2\n")
    assert "a row is of no series, and" in done.stderr


def test_the_end_of_kept_series_is_that_of_their_folder(keeping: FakeServer, keep: str) -> None:
    run(keeping, *STREAM, "--keep", keep, given=table())
    assert run(keeping, *STREAM, "--keep", keep, given=table()).stderr.startswith(
        f"tidegate: {keep} keeps a sequence already; go on with it (tidegate resume {keep})"
    )
    assert run(keeping, "end", keep).returncode == 0
    assert not Path(keep).exists()
    assert all(record.ended for record in keeping.behaviour.store.records.values())


def test_series_of_any_name_are_kept_and_a_file_that_was_renamed_is_said(keeping: FakeServer, keep: str) -> None:
    names = ["..", "a/b", "x" * 400, "ä,b", "%2C"]
    rows = "".join(f'"{name}",1,1,2\n' for name in names)
    for _ in range(2):
        command = ("resume", keep) if Path(keep).exists() else (*STREAM, "--keep", keep)
        done = run(keeping, *command, given="line,machine,left,right\n" + rows)
        assert (done.returncode, [line[0] for line in printed(done.stdout)]) == (0, names)
    assert len([*Path(keep).iterdir()]) == len(names)
    (Path(keep) / "a%2Fb,1.seq").rename(Path(keep) / "other.seq")
    done = run(keeping, "resume", keep, given=rows)
    assert f"{keep}/other.seq was called {keep}/a%2Fb,1.seq; give it that name, or move it away" in done.stderr


def test_a_description_says_what_tells_series_apart(server: FakeServer) -> None:
    page = run(server, "describe", "toy", "--version", "4").stdout
    assert "a sequence for each series, which a table tells apart by 'line' and 'machine'" in page
