"""What is said of long work: in a terminal one line that changes, elsewhere plain lines, of short work nothing."""

import sys
from itertools import count

import pytest

from tidegate import progress
from tidegate.progress import Progress


def said(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float) -> None:
    """Three sentences, with a clock that goes on by so many seconds between any two looks at it."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(progress, "time", type("Clock", (), {"monotonic": count(step=seconds).__next__}))
    with Progress() as told:
        for done in ("1,000 read", "2,000 read", "all read"):
            told.tell(done)


def test_a_terminal_has_one_line_which_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said(monkeypatch, terminal=True, seconds=2)
    assert capsys.readouterr().err == "\r1,000 read\r2,000 read\rall read  \r        \r"


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said(monkeypatch, terminal=False, seconds=12)
    assert capsys.readouterr().err == "1,000 read\n2,000 read\nall read\n"


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.01), (False, 2)])
def test_of_short_work_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool, seconds: float
) -> None:
    said(monkeypatch, terminal=terminal, seconds=seconds)
    assert capsys.readouterr().err == ""
