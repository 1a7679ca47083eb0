"""The command in a process of its own, against the fake server in this one."""

import csv
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from tests.forked import Forker
from tests.tidegate.fake_server import FakeServer, expected
from tidegate.cli.arguments import read

COMMAND = [sys.executable, "-m", "tidegate.cli.command"]
ROWS = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
TABLE = "left,right\n" + "".join(f"{left},{right}\n" for left, right in ROWS)


@cache
def forker() -> Forker:
    """For COMMAND, which is started some two hundred times: without what its imports take."""
    return Forker("tidegate.cli.running")


def run(server: FakeServer | str, *arguments: str, given: str | bytes = "") -> subprocess.CompletedProcess[str]:
    address = server if isinstance(server, str) else server.address
    done = forker().run(
        COMMAND[-1], ["--server", address, *arguments], given.encode() if isinstance(given, str) else given
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def in_terminal(server: FakeServer, *arguments: str, columns: int = 80, **environment: str) -> str:
    """What a terminal of that width would get."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONUTF8": "1", **environment}
    environment.setdefault("NO_COLOR", "")
    process = subprocess.Popen([*COMMAND, "--server", server.address, *arguments], stdout=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
    assert process.wait(120) == 0
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "rows.csv").write_text(TABLE)
    return str(tmp_path / "rows.csv")


@pytest.mark.parametrize("more", [[], ["--chunk", "4"]], ids=["single steps", "chunks"])
def test_a_stream_into_a_pipe_is_csv_with_every_gate_by_name(server: FakeServer, table: str, more: list[str]) -> None:
    done = run(server, "stream", "toy", table, *more)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert (done.returncode, done.stderr) == (0, "")
    assert [int(row["step"]) for row in rows] == list(range(10))
    np.testing.assert_array_equal([np.float32(row["y"]) for row in rows], expected(ROWS))
    assert {"l0.hidden.0", "l0.cell.2", "l1.forget.2", "l1.output.0"} < rows[0].keys()
    assert float(rows[3]["l0.forget.1"]) == float(rows[3]["l0.output.1"])


def test_columns_are_found_by_their_names_and_others_are_left_out(server: FakeServer) -> None:
    shuffled = "right,when,left\n" + "".join(f"{right},12:00,{left}\n" for left, right in ROWS)
    done = run(server, "stream", "toy", "--no-trace", given=shuffled)
    assert done.stdout == run(server, "stream", "toy", "--no-trace", given=TABLE).stdout
    assert done.stdout.splitlines()[0] == "step,y"
    assert done.stderr == "tidegate: columns that the model does not take are left out: 'when'\n"


def test_the_file_may_stand_after_the_options(server: FakeServer, table: str) -> None:
    before = run(server, "stream", "toy", table, "--no-trace")
    after = run(server, "stream", "toy", "--no-trace", table)
    assert (after.returncode, after.stdout) == (0, before.stdout)


def test_json_lines_have_outputs_and_layers_by_name(server: FakeServer, table: str) -> None:
    done = run(server, "stream", "toy", table, "--output", "jsonl", "--layers", "1", "--every", "4")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["step"] for record in records if "layers" in record] == [0, 4, 8]
    assert records[0]["layers"].keys() == {"1"}
    assert len(records[0]["layers"]["1"]["forget"]) == 3
    np.testing.assert_array_equal(np.float32([record["outputs"]["y"][0] for record in records]), expected(ROWS))


def test_a_step_without_a_trace_leaves_its_columns_empty(server: FakeServer, table: str) -> None:
    lines = run(server, "stream", "toy", table, "--every", "2").stdout.splitlines()
    assert lines[2].startswith("1,")
    assert lines[2].endswith("," * 36)


def test_a_numpy_file_is_read_from_a_path_or_a_pipe(server: FakeServer, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    from_file = run(server, "stream", "toy", str(tmp_path / "x.npy"))
    from_pipe = run(server, "stream", "toy", given=(tmp_path / "x.npy").read_bytes())
    assert from_file.stdout == from_pipe.stdout == run(server, "stream", "toy", given=TABLE).stdout


def test_a_live_line_is_answered_before_the_next_one_comes(server: FakeServer) -> None:
    command = [*COMMAND, "--server", server.address, "stream", "toy", "--no-trace"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step in range(4):
            process.stdin.write(f"{step},0\n")
            process.stdin.flush()
            if step == 0:
                assert process.stdout.readline() == "step,y\n"
            assert process.stdout.readline().startswith(f"{step},")
        process.stdin.close()
        assert process.wait(120) == 0


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(server: FakeServer, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((20000, 2), np.float32))
    command = " ".join([*COMMAND, "--server", server.address, "stream", "toy", str(tmp_path / "x.npy"), "| head -n 2"])
    script = f"{command}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (["stream", "nope"], TABLE, "tidegate: there is no model 'nope' (UNKNOWN_MODEL)\n"),
        (["describe", "nope"], "", "tidegate: there is no model 'nope' (UNKNOWN_MODEL)\n"),
        (
            ["stream", "toy"],
            "1,2\nnan,3\n",
            "tidegate: line 2: column 'left' holds 'nan', and a number was expected: none may be missing there\n",
        ),
        (["stream", "toy"], "1,2,3\n", "tidegate: 3 columns; 2 were expected: left, right\n"),
        (["stream", "toy", "/no/such/file"], "", "tidegate: /no/such/file: No such file or directory\n"),
    ],
)
def test_what_fails_says_so_in_one_line_and_exits_with_one(
    server: FakeServer, arguments: list[str], given: str, words: str
) -> None:
    done = run(server, *arguments, given=given)
    assert (done.returncode, done.stderr) == (1, words)


@pytest.mark.parametrize("source", ["<(cat {})", "/dev/stdin < {}", "/dev/stdin < <(cat {})", "< <(cat {})"])
@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_a_table_is_read_from_whatever_the_shell_makes_of_it(
    server: FakeServer, table: str, tmp_path: Path, source: str, kind: str
) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    path = table if kind == "csv" else str(tmp_path / "rows.npy")
    words = shlex.join([*COMMAND, "--server", server.address, "stream", "toy", "--no-trace", "--output", "csv"])
    done = subprocess.run(
        ["bash", "-c", f"{words} {source.format(shlex.quote(path))}"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [np.float32(line.split(",")[1]) for line in done.stdout.splitlines()[1:]] == expected(ROWS).tolist()


@pytest.mark.parametrize("text", ["", "\n", "left,right\n"])
def test_an_empty_table_is_said(server: FakeServer, tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.csv").write_text(text)
    for source in ("-", str(tmp_path / "empty.csv")):
        done = run(server, "stream", "toy", source, given=text)
        words = f"tidegate: {source}: the table is empty, and nothing was sent\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", words)


def test_answers_before_a_refused_row_are_printed(server: FakeServer) -> None:
    done = run(server, "stream", "toy", "--no-trace", given="1,2\n1,2\nnan,3\n1,2\n")
    assert len(done.stdout.splitlines()) == 3


def test_a_server_that_is_not_there_is_named_in_one_line() -> None:
    done = run("127.0.0.1:1", "models")
    assert done.returncode == 1
    assert re.fullmatch(r"tidegate: no Tidegate server answers at 127\.0\.0\.1:1 \(.*\)\n", done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stream"],
        ["describe", "toy", "a"],
        ["models", "a"],
        ["stream", "toy", "--nope"],
        ["stream", "toy", "--chunk", "0"],
        ["stream", "toy", "--units", "a"],
        ["move", "keep", "0"],
        ["--timeout", "0"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    assert run("127.0.0.1:1", *arguments).returncode == 2


def test_an_interrupt_exits_with_130(server: FakeServer) -> None:
    command = [*COMMAND, "--server", server.address, "stream", "toy", "--no-trace"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("1,2\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(2)
        assert process.wait(120) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_models_are_a_table_with_the_reason_of_a_refusal(server: FakeServer) -> None:
    assert run(server, "models").stdout == (
        "MODEL   VERSION  STATUS   LAYERS    INPUTS        OUTPUTS\n"
        "broken  1        refused\n"
        "  node /lstm is bidirectional\n"
        "pair    1        ready    GRU 2     a [1], token  y [1], top\n"
        "toy     1        ready    LSTM 2x3  x [2]         y [1]\n"
    )
    assert [model["status"] for model in json.loads(run(server, "models", "--json").stdout)] == [
        "refused",
        "ready",
        "ready",
    ]


def test_a_description_is_a_page_or_json(server: FakeServer) -> None:
    page = run(server, "describe", "toy").stdout
    for line in ("toy version 1, ready", "A toy called toy.", "    left", "state   48 bytes for each sequence"):
        assert line in page.splitlines()
    assert re.search(r"64 steps agree with the file within 2e-07 \(1e-05 is allowed\)", page)
    described = json.loads(run(server, "describe", "toy", "--json").stdout)
    plain = {"unit": "", "missing": False, "categories": [], "lowest": None, "highest": None}
    plain |= {"calendar": "", "source": "", "ahead": 0}
    assert described["inputs"][0] == {
        "name": "x",
        "dtype": "float32",
        "shape": [2],
        "features": ["left", "right"],
        "units": ["", ""],
        "columns": [plain | {"name": "left"}, plain | {"name": "right"}],
        "classes": [],
        "timestamp": [],
        "time_format": "",
        "time_step": "",
        "series": [],
    }
    assert "bidirectional" in run(server, "describe", "broken").stdout


def test_a_terminal_gets_a_drawing_in_colour_and_no_line_wider_than_it(server: FakeServer, table: str) -> None:
    seen = in_terminal(server, "stream", "toy", table)
    assert "\x1b[38;5;" in seen
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()
    assert plain[0] == "toy version 1: LSTM 2x3"
    assert len(plain) == 4 + 10
    assert max(len(line) for line in plain) <= 80


def test_a_terminal_without_colour_gets_none(server: FakeServer, table: str) -> None:
    assert "\x1b" not in in_terminal(server, "stream", "toy", table, NO_COLOR="1")
    assert "\x1b" not in in_terminal(server, "models", NO_COLOR="1")


def test_a_terminal_that_knows_ascii_only_gets_ascii(server: FakeServer, table: str) -> None:
    seen = in_terminal(server, "stream", "toy", table, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert seen.isascii()


def test_help_explains_every_command() -> None:
    for command in ("", "models", "describe", "stream", "resume", "state", "fork", "rewind", "move", "end"):
        assert "usage: tidegate" in run("127.0.0.1:1", *command.split(), "--help").stdout


def test_options_of_the_connection_stand_before_the_command_or_after_it(server: FakeServer) -> None:
    before = run(server, "models")
    after = subprocess.run([*COMMAND, "models", "--server", server.address], capture_output=True, text=True, check=True)
    assert after.stdout == before.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rewind", "keep", "abc"], "argument STEP: 'abc' is no whole number from 0 on (see tidegate rewind --help)"),
        (["models", "--timeout", "x"], "argument --timeout: 'x' is no number of seconds above 0"),
        (["stream", "toy", "--units", "1-x"], "argument --units: '1-x' is no list of numbers like 0,2 or 1-3"),
        (["describe", "toy", "--version", "0"], "argument --version: '0' is no whole number from 1 on"),
        (["describe", "toy", "9"], "unrecognized arguments: 9 (see tidegate describe --help)"),
        (["versions", "canary", "toy", "2", "nan"], "argument PERCENT: 'nan' is no number from 0 to 100"),
    ],
)
def test_a_wrong_argument_is_explained_in_one_line(arguments: list[str], words: str) -> None:
    done = run("127.0.0.1:1", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_units_that_no_layer_has_are_refused_before_anything_is_sent(server: FakeServer) -> None:
    done = run(server, "stream", "toy", "--units", "0-99", given="1,2\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "tidegate: --units names unit 99, and the largest layer has the units 0 to " in done.stderr


def test_a_file_that_is_no_table_is_named(server: FakeServer, tmp_path: Path) -> None:
    np.savez(tmp_path / "state.npz", x=np.zeros(2))
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    for name in ("state.npz", "objects.npy"):
        done = run(server, "stream", "toy", str(tmp_path / name))
        assert done.returncode == 1
        assert f"{name}: a CSV file in UTF-8, or a .npy file of numbers, was expected" in done.stderr


def test_a_cell_too_long_for_csv_is_refused_in_one_line(server: FakeServer) -> None:
    done = run(server, "stream", "toy", given="1,2\n" + "1" * 200_000 + ",2\n")
    assert done.returncode == 1
    assert "tidegate: line 2: it is no CSV (field larger than field limit" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_command_runs_with_its_input_or_output_closed(server: FakeServer, table: str, closed: str) -> None:
    command = f"{shlex.join([*COMMAND, '--server', server.address, 'stream', 'toy', table])} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_connection_that_is_refused_is_told_without_what_grpc_says_before_and_beside_it() -> None:
    done = run("127.0.0.1:1", "models")
    assert done.stderr.count("127.0.0.1:1") == 1
    assert "last error" not in done.stderr
    assert run("https://127.0.0.1:1", "models").stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--ca", "/no.pem"], "tidegate: /no.pem: No such file or directory\n"),
        (["--cert", "/no.pem"], "tidegate: --cert and --key belong together: one of them was not given\n"),
    ],
)
def test_files_of_tls_that_cannot_be_used_are_named_as_the_command_line_has_them(given: list[str], words: str) -> None:
    assert run("https://127.0.0.1:1", *given, "models").stderr == words


def test_the_command_runs_from_its_sources_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("tidegate.cli.arguments.version", absent)
    with pytest.raises(SystemExit):
        read(["--version"])
    assert capsys.readouterr().out == "tidegate (not installed)\n"
