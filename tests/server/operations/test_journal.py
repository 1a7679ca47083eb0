from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from server.caller import Caller
from server.edge.refusals import Refusals
from server.errors import BadInput, Reason, Silent, TidegateError
from server.lives import CLOSED, DISCONNECTED, Lives
from server.operations.journal import REFUSALS, SEQUENCES, Journal


@dataclass
class Gone:
    """A sequence that leaves."""

    id: str
    owner: str = "token:line4 press"
    began: float = 2.0
    resumed: bool = False
    trace: str = ""
    place: tuple[str, int] = ("weather", 3)
    taken: int = 17


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def text(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, server = Lines(), logging.getLogger("server")
    before = server.level
    server.addHandler(handler)
    server.setLevel(logging.INFO)
    yield handler
    server.removeHandler(handler)
    server.setLevel(before)


def crowd(count: int) -> list[Gone]:
    return [Gone(f"route-{number}") for number in range(count)]


def test_a_sequence_that_leaves_has_one_line_that_says_who_what_how_long_and_why(lines: Lines) -> None:
    lives = Lives([Journal(lambda: 5.5)])
    lives.came([Gone("a-1")])
    lives.left([Gone("a-1")], CLOSED)
    (record,) = lines.records
    assert record.getMessage() == (
        "sequence a-1 of weather/3 (token:line4 press): closed after step 17, 3.5 s after it was opened"
    )
    assert record.fields == {  # type: ignore[attr-defined]
        "event": "sequence",
        "id": "a-1",
        "owner": "token:line4 press",
        "model": "weather",
        "version": 3,
        "steps": 17,
        "seconds": 3.5,
        "resumed": False,
        "why": "closed",
    }


def test_of_fifty_thousand_that_end_at_once_the_first_have_a_line_and_the_others_are_counted_by_kind(
    lines: Lines,
) -> None:
    now = 0.0
    journal = Journal(lambda: now)
    there = crowd(64)
    for _ in range(50_000 // 64):
        journal.left(there, DISCONNECTED)
    journal.left([Gone("b-1", place=("words", 1))] * 3, CLOSED)
    assert len(lines.records) == SEQUENCES
    journal.sum_up()
    left_out = 50_000 // 64 * 64 - SEQUENCES + 3
    assert lines.text[-1] == (
        f"{left_out:,} more sequences have no line of their own: "
        f"{left_out - 3:,} weather/3 disconnected, 3 words/1 closed"
    )
    now = 1.0
    journal.sum_up()
    assert len(lines.records) == SEQUENCES + 1, "it is said once"
    journal.left([Gone("c-1")], CLOSED)
    assert "sequence c-1" in lines.text[-1]


def test_a_refusal_has_a_line_with_reason_owner_and_ids_and_beyond_a_rate_a_count(lines: Lines) -> None:
    refusals, journal = Refusals(), Journal(lambda: 0.0)
    refusals.tell = journal.refused
    error = BadInput("input 'x' is of another shape", Reason.WRONG_SHAPE)
    for _ in range(1_000):
        refusals.note(error, Caller("ipv4:10.0.0.7"), "steps", lambda most: ["a-1"][:most])
    refusals.note(TidegateError("it is another's", Reason.WRONG_TOKEN), Caller("ipv4:10.0.0.8", token="line4"), "")
    assert len(lines.records) == REFUSALS
    assert lines.text[0] == "steps of ipv4:10.0.0.7: WRONG_SHAPE: input 'x' is of another shape (sequence a-1)"
    assert lines.records[0].fields["ids"] == ["a-1"]  # type: ignore[attr-defined]
    journal.sum_up()
    assert lines.text[-1] == (
        f"{1_001 - REFUSALS:,} more refusals have no line of their own: "
        f"{1_000 - REFUSALS:,} WRONG_SHAPE of none, 1 WRONG_TOKEN of line4"
    )
    assert +refusals.counts == {("WRONG_SHAPE", "none"): 1_000, ("WRONG_TOKEN", "line4"): 1}
    assert refusals.counts["INTERNAL", "none"] == 0, "a first one is seen to rise"


def test_a_stream_that_was_silent_is_no_refusal(lines: Lines) -> None:
    refusals = Refusals()
    refusals.tell = Journal().refused
    refusals.note(Silent("nothing was said"), Caller(), "Stream")
    assert not lines.records
    assert not +refusals.counts


def test_what_watches_sequences_and_fails_is_logged_and_changes_nothing(lines: Lines) -> None:
    class Broken(Journal):
        def came(self, _those: object) -> None:
            raise ValueError("broken")

    lives = Lives([Broken(), Journal()])
    lives.came([Gone("a-1")])
    lives.left([Gone("a-1")], CLOSED)
    assert lines.text[0] == "what watches sequences failed"
    assert "closed" in lines.text[-1]
