"""Several machines on one journal: here several processes, each with a folder and a path to the journal of its own."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from tests.forked import forked_here
from training.command import main
from training.tabular import searching
from training.tabular.searching import open_study, search
from training.tabular.settings import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from training.tabular.settings import Table


def search_when_told(folder: Path, file: str, runs: str, minutes: float, dies: bool) -> None:
    """Says when it is ready, searches at a word, and says what it tried; at a second word, what is the best."""
    os.chdir(folder)
    config = defaults(
        files=(file,), name="gappy", target=("load",), series="site", horizons=(1, 6), hidden=6, steps=8, batch=4,
        evaluate_every=2, runs=Path(runs),
    )  # fmt: skip
    look, console, tried = config.look(), Console(file=io.StringIO()), list[int]()
    attempt, append = searching.attempt, JournalFileBackend.append_logs

    def counted(trial: optuna.Trial, *rest: Any) -> float:  # noqa: ANN401 - as it is called
        tried.append(trial.number)
        return attempt(trial, *rest)

    def held(journal: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if tried:  # within a trial, and with the journal's lock
            journal._lock.acquire()
            print("held", flush=True)
            sys.stdin.readline()
        append(journal, logs)

    searching.attempt = counted
    if dies:
        JournalFileBackend.append_logs = held  # type: ignore[method-assign] # in a process that is killed here
    print("ready", flush=True)
    sys.stdin.readline()
    searching.search(config, look, minutes, console)
    print(json.dumps(tried), flush=True)
    sys.stdin.readline()
    print(json.dumps(searching.search(config, look, 0, console).as_json()), flush=True)


class Machine:
    """A process in a folder of its own, which is ready to search."""

    def __init__(self, folder: Path, file: str, runs: str, minutes: float, dies: bool = False) -> None:
        folder.mkdir()
        (told, tells), (hears, said) = os.pipe(), os.pipe()
        self._tells, self._hears = os.fdopen(tells, "w"), os.fdopen(hears)
        self._process = forked_here(search_when_told, folder, file, runs, minutes, dies, pipes=(told, said, 2))
        os.close(told)
        os.close(said)

    def heard(self) -> str:
        return self._hears.readline().strip()

    def tell(self) -> None:
        print("go", file=self._tells, flush=True)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._tells.close()
        self._hears.close()


def settings(study: optuna.Study) -> list[str]:
    return [json.dumps(trial.params, sort_keys=True) for trial in study.trials]


def test_two_machines_on_one_journal_share_the_trials_and_end_with_the_same_best(
    brief_table: Callable[..., Table], gappy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = brief_table(steps=8, evaluate_every=2, checkpoint_every=200)
    look, console, mine = config.look(), Console(file=io.StringIO()), list[int]()
    attempt = searching.attempt

    def counted(trial: optuna.Trial, *rest: object) -> float:
        mine.append(trial.number)
        return attempt(trial, *rest)  # type: ignore[arg-type] # as it is called

    monkeypatch.setattr(searching, "attempt", counted)
    with Machine(tmp_path / "other", gappy, os.path.join("..", "runs"), 0.02) as other:  # noqa: PTH118 - as it is typed
        assert other.heard() == "ready"
        other.tell()
        search(config, look, 0.02, console)
        theirs = json.loads(other.heard())
        other.tell()
        best = json.loads(other.heard())
    study = open_study(config, look)
    assert mine
    assert theirs
    assert sorted([*mine, *theirs]) == list(range(len(study.trials)))
    assert len(set(settings(study))) == len(study.trials)  # nothing is tried twice
    assert all(trial.state.is_finished() for trial in study.trials)
    assert json.loads(json.dumps(search(config, look, 0, console).as_json())) == best
    assert best["hidden"] == study.best_params["hidden"]


def test_a_machine_that_is_killed_within_a_trial_and_with_the_journals_lock_does_not_stop_another(
    brief_table: Callable[..., Table], gappy: str, tmp_path: Path
) -> None:
    config = brief_table(steps=8, evaluate_every=2, checkpoint_every=200)
    look, console = config.look(), Console(file=io.StringIO(), width=200)
    with Machine(tmp_path / "other", gappy, os.path.join("..", "runs"), 1, dies=True) as other:  # noqa: PTH118
        assert other.heard() == "ready"
        other.tell()
        assert other.heard() == "held"
        other.kill()
    found = search(config, look, 0.001, console)
    study = open_study(config, look)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "COMPLETE"]
    assert found.hidden == study.best_params["hidden"]
    assert "2 trials" in console.file.getvalue()  # type: ignore[attr-defined] # a StringIO


def test_a_search_that_goes_on_tries_other_settings_than_before(brief_table: Callable[..., Table]) -> None:
    config = brief_table(steps=4, evaluate_every=2)
    look, console = config.look(), Console(file=io.StringIO())
    for _ in range(3):
        search(config, look, 1e-6, console)
    study = open_study(config, look)
    assert len(set(settings(study))) == len(study.trials) == 3


def test_a_search_of_no_minutes_fits_the_best_of_before_and_where_there_is_none_says_so(
    brief_table: Callable[..., Table], gappy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = brief_table(steps=4, evaluate_every=2)
    names = ("name", "hidden", "steps", "batch", "evaluate_every", "checkpoint_every", "runs", "models")
    given = [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]
    command = ["table", gappy, "--target", "load", "--series", "site", "--horizons", "1,6", *given, "--search"]
    assert main([*command, "0"]) == 2
    assert "--search 0: nothing was tried to its end before" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "-1"])
    search(config, config.look(), 1e-6, Console(file=io.StringIO()))
    study = open_study(config, config.look())
    assert main([*command, "0"]) == 0
    assert len(open_study(config, config.look()).trials) == len(study.trials)
    (said,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("gappy/*/config.json"))
    assert said["hidden"] == study.best_params["hidden"]
