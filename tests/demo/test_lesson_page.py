"""The lesson's picture from canned answers: what is drawn, and what is said about it."""

import numpy as np
import pytest

from demo import lesson_page
from demo.lesson import LESSON, READS, WRITE, Taken, block
from tidegate.answers import Answer, Answers, TraceLayout
from tidegate.drawing.glyphs import Style
from training.recipes import figure

PLAIN = Style()
GATES = ("input", "forget", "candidate", "output")
LSTM = TraceLayout({0: {name: slice(i, i + 1) for i, name in enumerate(("hidden", "cell", *GATES))}})
RNN = TraceLayout({0: {"hidden": slice(0, 1)}})


def lstm(written: float, output_gate_at_5: float = 0.0) -> Answers:
    steps = range(len(LESSON))
    cell = [0.0 if step < WRITE else written for step in steps]
    rows = [
        [0.0, cell[t], float(t == WRITE), float(t != WRITE), 0.0, output_gate_at_5 if t == 5 else float(t in READS)]
        for t in steps
    ]
    outputs = [[cell[t] if t in READS else 0.0] for t in steps]
    return block([Answer({"y": np.array(outputs[t])}, np.array(rows[t]), LSTM, t) for t in steps])


def rnn(written: float) -> Answers:
    rows = [[0.0 if t < WRITE else 0.1 + written * 0.5 ** (t - WRITE)] for t in range(len(LESSON))]
    return block([Answer({"y": np.array([0.0])}, np.array(row), RNN, t) for t, row in enumerate(rows)])


TAKEN = Taken(lstm(0.8), lstm(-0.8))
FADED = Taken(rnn(0.8), rnn(-0.8))


def test_the_picture_stands_in_one_grid_of_steps() -> None:
    lines = lesson_page.gates(TAKEN, PLAIN)
    assert lines[:2] == [
        "    value sent   -0.3    0.8     -0.5    0.4     -0.9    0.6     0.1",
        "          flag           write                   read            read",
    ]
    (steps,) = (line for line in lines if "step" in line)
    assert [steps[17 + 8 * t : 25 + 8 * t].strip() for t in range(7)] == list("0123456")


def test_the_gates_are_drawn_where_the_book_has_them() -> None:
    rows = {line[:14].strip(): line[17:] for line in lesson_page.gates(TAKEN, PLAIN)}
    assert rows["input gate"].split() == list("-o-----")
    assert rows["output gate"].split() == list("----o-o")
    assert [mark for mark in rows["forget, unit"].split() if mark in "o-"] == list("o-ooooo")


def test_the_sentences_follow_from_the_gates() -> None:
    text = " ".join(lesson_page.reading(TAKEN))
    assert "open at step 1 only" in text
    assert "holding, from step 2 to 6. At step 1 it closes" in text
    assert "open at steps 4 and 6 only" in text


def test_a_network_that_found_another_way_is_not_described_as_the_book_has_it() -> None:
    other = Taken(lstm(0.8, output_gate_at_5=1.0), lstm(-0.8))
    (text,) = lesson_page.reading(other)
    assert "another solution" in text
    assert "The output gate is open at: 4, 5 and 6." in text


def test_what_is_left_of_the_written_value_is_measured_against_its_opposite() -> None:
    np.testing.assert_allclose(TAKEN.kept, np.ones(6))
    np.testing.assert_allclose(FADED.kept, 0.5 ** np.arange(6))


def test_two_memories_stand_side_by_side() -> None:
    lines = lesson_page.memories(TAKEN, FADED, PLAIN)
    assert len(lines) == 1 + 6
    assert lines[2].split() == ["step", "2", "█" * 20, "100.0%", "█" * 10 + "░" * 10, "50.0%"]


def test_both_answers_are_told() -> None:
    assert "LSTM unit says 0.80 and 0.80" in lesson_page.comparison(TAKEN, FADED)
    assert "plain RNN unit 0.00 and 0.00" in lesson_page.comparison(TAKEN, FADED)


def test_a_place_without_block_characters_gets_ascii() -> None:
    ascii_only = Style(unicode=False)
    text = "\n".join([*lesson_page.gates(TAKEN, ascii_only), *lesson_page.memories(TAKEN, FADED, ascii_only)])
    assert text.isascii()


@pytest.mark.parametrize("picture", [lesson_page.gates(TAKEN, PLAIN), lesson_page.memories(TAKEN, FADED, PLAIN)])
def test_pictures_fit_eighty_columns(picture: list[str]) -> None:
    assert max(map(len, picture)) <= 80


def test_the_lesson_is_the_one_that_the_pipeline_reports_on() -> None:
    assert LESSON == figure.LESSON
