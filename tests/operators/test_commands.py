"""`tidegate sequences`, `tidegate store` and `tidegate versions` against a running server; `python -m server store`."""

from __future__ import annotations

import json
import re
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tidegate
from server.operations import store as command
from tests.end_to_end.test_life import add
from tests.operators.test_admin import ROWS, parked, the_rest
from tests.running_server import ROOT
from tests.torch_models import Spec
from tests.valkey_server import RunningValkey
from tidegate import progress
from tidegate.cli import running
from tidegate.cli.bookmark import Bookmark

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running_server import RunningServer


@pytest.fixture
def tidegate_says(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs the command, and gives the lines of its output; `status` is what is expected."""

    def run(*arguments: str, status: int = 0) -> list[str]:
        capsys.readouterr()
        assert running.run(arguments) == status, capsys.readouterr()
        said = capsys.readouterr()
        return (said.err if status else said.out).splitlines()

    return run


def test_sequences_are_listed_shown_and_ended(
    start: Callable[..., RunningServer],
    lstm_only: Path,
    tidegate_says: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = start(lstm_only).ready().address
    id_, token, _ = parked(address, "ann", 5)
    where = "--server", address
    (line,) = tidegate_says("sequences", *where, "--parked", "--owner", "ann")
    assert json.loads(line).items() >= {"id": id_, "steps": 5, "life": "parked", "owner": "ann"}.items()
    assert token not in line
    assert tidegate_says("sequences", "--open", *where) == tidegate_says("sequences", *where, "--idle", "2d") == []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    header, row = tidegate_says("sequences", *where)
    assert header.split() == ["ID", "MODEL", "VERSION", "STEPS", "STATE", "IDLE", "OWNER", "FROM"]
    assert [*row.split()[:5], *row.split()[6:]] == [id_, "lstm", "1", "5", "parked", "ann", "127.0.0.1"]
    shown = [line.split(maxsplit=1) for line in tidegate_says("sequences", "show", id_, *where)]
    assert [name for name, _ in shown] == [
        "id",
        "model",
        "version",
        "steps",
        "state",
        "last",
        "checkpoint",
        "owner",
        "from",
    ]
    assert [one[1] for one in shown if one[0] in ("id", "state", "from")] == [id_, "parked", "127.0.0.1"]
    assert "no sequence 'x' is open or kept here" in tidegate_says("sequences", "show", "x", *where, status=1)[0]
    assert "there is no action 'stop'; expected list," in tidegate_says("sequences", "stop", id_, *where, status=1)[0]
    assert "1 sequence would end; say --yes" in tidegate_says("sequences", "end", id_, *where, status=1)[0]
    assert tidegate_says("sequences", "end", id_, "--yes", *where) == [id_]
    for given in ((id_,), (id_, "--yes")):  # it has ended
        assert f"no sequence '{id_}' is open or" in tidegate_says("sequences", "end", *given, *where, status=1)[-1]
    assert tidegate_says("sequences", "end", "--model", "none", *where) == []
    with tidegate.connect(address) as client, pytest.raises(tidegate.SequenceLost, match="by who runs the server"):
        client.resume(id_, token, answered=5)


def test_the_store_is_described_checked_backed_up_and_restored(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, tidegate_says: Callable[..., list[str]]
) -> None:
    address, other = (start(lstm_only, "--store", f"sqlite:{tmp_path / name}").ready().address for name in "ab")
    id_, token, answers = parked(address, "ann", 5)
    info: dict[str, Any] = json.loads(tidegate_says("store", "info", "--server", address)[0])
    assert (info["kind"], info["place"], info["sequences"]) == ("sqlite", str(tmp_path / "a"), 1)
    check = json.loads(tidegate_says("store", "check", "--server", address)[0])
    assert check["versions"] == [{"model": "lstm", "version": 1, "sequences": 1, "stranded": False}]
    file = str(tmp_path / "backup")
    tidegate_says("store", "backup", file, "--server", address)
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert tidegate_says("store", "restore", file, "--server", other)[0].startswith("1 record put; 0 left")
    assert len(answers + the_rest(other, id_, token, 5)) == len(ROWS)
    assert "is no backup of a store" in tidegate_says("store", "restore", __file__, "--server", other, status=1)[0]


def test_a_store_that_can_be_read_and_not_written_is_said_to_be(
    start: Callable[..., RunningServer],
    lstm_only: Path,
    tmp_path: Path,
    tidegate_says: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = start(lstm_only, "--store", f"sqlite:{tmp_path / 'a'}").ready()
    parked(server.address, "ann", 5)

    def info() -> Any:  # noqa: ANN401 - JSON
        return json.loads(tidegate_says("store", "info", "--server", server.address)[0])

    assert (info()["answers"], info()["fault"]) == (True, "")
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**16, 2**16))  # no larger file, as on a full disk
    with tidegate.connect(server.address) as client, client.fleet("lstm", 1_000, trace=False) as fleet:
        while not info()["fault"]:
            fleet.step(np.zeros((1_000, 3), np.float32))
        assert (info()["answers"], info()["sequences"]) == (True, 1)
        assert str(tmp_path / "a") in info()["fault"]
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        _, fault, kept, _ = tidegate_says("store", "info", "--server", server.address)
        assert fault.startswith("reads work, writes fail: the store ")
        assert kept == "1 sequence, 1 of them parked"


def test_a_store_is_told_of_in_the_same_words_with_a_server_and_without(
    start: Callable[..., RunningServer],
    lstm_only: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = start(lstm_only, "--store", f"sqlite:{tmp_path / 'a'}").ready()
    ended = parked(server.address, "ann", 3)[0]
    parked(server.address, "ann", 5)
    file, again = str(tmp_path / "backup"), str(tmp_path / "again")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    def said(run: Callable[[list[str]], int], *arguments: str) -> str:
        assert run([*arguments]) == 0
        both = capsys.readouterr()
        return both.out + re.sub("^.*: ", "", both.err)  # a file that was written is told of after the command's name

    def ours(*arguments: str) -> str:
        return said(running.run, "store", *arguments, "--server", server.address)

    assert running.run(["sequences", "end", ended, "--yes", "--server", server.address]) == 0
    capsys.readouterr()
    with_a_server = [ours("check"), ours("backup", file), ours("restore", file)]
    server.terminate()
    server.wait()
    at = f"sqlite:{tmp_path / 'a'}"
    without = [said(command.main, *given) for given in (["check", at], ["backup", at, again], ["restore", at, again])]
    assert [one.replace(again, file) for one in without] == with_a_server
    assert with_a_server[0].startswith("1 sequence, 1 of them parked, and why 1 other ended; ")
    assert with_a_server[2].startswith("1 record put; 0 left as they are there (open, or newer); 1 left out")


def test_it_is_said_how_far_a_backup_a_check_and_a_restore_are(
    start: Callable[..., RunningServer],
    lstm_only: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = start(lstm_only).ready().address
    parked(address, "ann", 5)
    monkeypatch.setattr(progress, "_EVERY_PLAIN", 0)
    for action in (["backup", str(tmp_path / "backup")], ["check"], ["restore", str(tmp_path / "backup")]):
        assert running.run(["store", *action, "--server", address]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert {"0 MiB written", "0 MiB of 0 MiB sent"} <= {*lines}
    assert any(re.fullmatch(r"\d+ checkpoints? read", line) for line in lines)


def test_a_version_is_rolled_back_by_one_command_and_aliases_and_pins_are_followed(
    start: Callable[..., RunningServer],
    lstm_only: Path,
    tidegate_says: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    where = "--server", server.address
    add(Spec(hidden=8, layers=2, seed=50), lstm_only, "lstm", 2)
    server.line("serving lstm version 2")
    id_, token, _ = parked(server.address, "ann", 5)
    tidegate_says("versions", "alias", "lstm", "old", "1", *where)
    (said,) = tidegate_says("versions", "move", "lstm", "2", "1", *where)
    assert json.loads(said).items() >= {"aliases": {"old": 1}, "moves": {"2": 1}, "pinned": 0}.items()
    assert (lstm_only / "lstm" / "versions.toml").read_text(encoding="utf-8").splitlines()[1:] == [
        'alias."old" = 1',
        "move.2 = 1",
    ]
    assert len(the_rest(server.address, id_, token, 5, version=1)) == len(ROWS) - 5
    with tidegate.connect(server.address) as client:
        for name, version in (("lstm@old", 1), ("lstm", 1), ("lstm@1", 1)):
            with client.sequence(name, trace=False) as sequence:
                assert (sequence.model, sequence.version) == ("lstm", version)
            assert client.describe(name).version == version
        with pytest.raises(tidegate.UnknownModel, match="version 2 is withdrawn"):
            client.sequence("lstm", version=2)
    assert tidegate_says("versions", "show", *where) == tidegate_says("versions", "show", "lstm", *where)
    assert "has no version 9 here" in tidegate_says("versions", "pin", "lstm", "9", *where, status=1)[0]
    shutil.rmtree(lstm_only / "lstm" / "1")
    server.line(re.escape("lstm/versions.toml says alias.old = 1, which is gone: what asks for it is refused"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = tidegate_says("versions", "show", "lstm", *where)
    assert {f"{what} version 1, which is gone: they are refused" for what in ("@old is", "version 2 goes on with")} <= {
        *lines
    }


def test_a_kept_sequence_goes_on_by_command_when_its_version_is_superseded_and_when_it_is_rolled_back(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, tidegate_says: Callable[..., list[str]]
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    table, keep, where = tmp_path / "rows.csv", str(tmp_path / "keep"), ("--server", server.address)
    np.savetxt(table, ROWS[:2], delimiter=",")

    def steps(*arguments: str) -> list[int]:
        command = [sys.executable, "-m", "tidegate.cli", *arguments, "--no-trace", *where, str(table)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return [int(line.partition(",")[0]) for line in ran.stdout.splitlines()[1:]]

    assert steps("stream", "lstm", "--keep", keep) == [0, 1]
    add(Spec(hidden=8, layers=2, seed=50), lstm_only, "lstm", 2)
    server.line("unloading lstm version 1")
    assert steps("resume", keep) == [2, 3]
    tidegate_says("versions", "move", "lstm", "1", "2", *where)
    assert steps("resume", keep) == [4, 5]
    assert Bookmark.load(keep).version == 2


def test_a_store_moves_to_another_kind_while_no_server_runs_and_clients_resume_there_bit_for_bit(
    start: Callable[..., RunningServer],
    lstm_only: Path,
    tmp_path: Path,
    valkey: RunningValkey,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, there, file = f"sqlite:{tmp_path / 'store'}", valkey.url, str(tmp_path / "backup")
    first = start(lstm_only, "--store", here).ready()
    left = [parked(first.address, "ann", 5) for _ in range(3)]
    first.terminate()
    first.wait()
    store = command.main
    assert store(["move", here, there]) == 0
    assert store(["check", there]) == 0
    assert "3 sequences, 3 of them parked; " in capsys.readouterr().out
    assert store(["backup", there, file]) == 0
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600  # it holds states
    assert store(["restore", here, file]) == 0
    assert store(["move", here, here]) == 1
    assert "the same store" in capsys.readouterr().err
    second = start(lstm_only, "--store", there).ready()
    with tidegate.connect(second.address) as client, client.sequence("lstm", trace=False) as sequence:
        expected = [sequence.step(row).output.tobytes() for row in ROWS]
    for id_, token, answers in left:
        assert answers + the_rest(second.address, id_, token, 5) == expected


def test_a_store_that_is_not_there_is_no_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent, file = tmp_path / "absent", str(tmp_path / "backup")
    for given in (["check"], ["backup", file], ["move", f"sqlite:{tmp_path / 'other'}"]):
        assert command.main([given[0], f"sqlite:{absent}", *given[1:]]) == 1
        assert f"there is no store {absent}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("schema", [2, 3])
def test_the_store_of_an_earlier_release_is_checked_and_moved_whole(
    tmp_path: Path, schema: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "tests" / "server" / "stores" / "kept" / f"schema_{schema}.sqlite", tmp_path / "old")
    old, new = f"sqlite:{tmp_path / 'old'}", f"sqlite:{tmp_path / 'new'}"
    store = command.main
    assert store(["check", old]) == 0
    before = re.match("[1-9][0-9]* sequences", capsys.readouterr().out)
    assert store(["move", old, new]) == 0
    capsys.readouterr()
    assert store(["check", new]) == 0
    assert before is not None
    assert capsys.readouterr().out.startswith(before[0])
