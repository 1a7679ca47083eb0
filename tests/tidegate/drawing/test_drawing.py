import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer
from tidegate.answers import Answers, TraceLayout
from tidegate.drawing.figure import figure
from tidegate.drawing.glyphs import Style
from tidegate.drawing.lines import Drawing, glyphs
from tidegate.model import Layer, Model, Proof, TensorSpec

PLAIN, ASCII, COLOUR = Style(), Style(unicode=False), Style(colour=True)
PARTS = ("hidden", "cell", "input", "forget", "candidate", "output")
F32 = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("value", "mark"),
    [(0, "-"), (0.0999, "-"), (0.1, "░"), (0.36, "░"), (0.37, "▒"), (0.5, "▒"), (0.64, "▓"), (0.9, "▓"), (0.9001, "o")],
)
def test_a_gate_is_open_above_nine_tenths_and_closed_below_one_tenth(value: float, mark: str) -> None:
    assert glyphs.gate(value, PLAIN) == mark
    assert glyphs.gate(value, ASCII) == mark.translate(str.maketrans("░▒▓", ".:+"))


def test_a_state_rises_if_positive_and_hangs_if_negative() -> None:
    assert "".join(glyphs.state(value, PLAIN) for value in (-1, -0.6, -0.2, 0, 0.2, 0.6, 1)) == "█▀▔·▂▅█"
    assert "".join(glyphs.state(value, ASCII) for value in (-1, -0.2, 0, 0.2, 1)) == "=~.+#"


@pytest.mark.parametrize(
    ("value", "drawn"),
    [
        (0, "    │    "),
        (1, "    │████"),
        (-1, "████│    "),
        (0.125, "    │▌   "),
        (-0.375, "  ▐█│    "),
        (9, "    │███»"),
    ],
)
def test_a_bar_goes_to_the_side_of_its_sign(value: float, drawn: str) -> None:
    assert glyphs.bar(value, PLAIN) == drawn


def test_what_is_no_number_is_drawn_as_a_question() -> None:
    assert (glyphs.gate(np.nan, PLAIN), glyphs.state(np.inf, PLAIN), glyphs.bar(np.nan, PLAIN).strip()) == ("?",) * 3


def test_colours_take_no_room() -> None:
    assert glyphs.gate(1, COLOUR) != "o"
    assert glyphs.visible_length(glyphs.gate(1, COLOUR) + glyphs.bar(-0.5, COLOUR)) == 10


def model(hidden: list[int], outputs: int = 1) -> Model:
    layers = tuple(Layer(i, "LSTM", f"/l{i}", 1, size, PARTS[2:], ()) for i, size in enumerate(hidden))
    spec = TensorSpec("y", F32, (outputs,), (), ())
    return Model("m", 3, "ready", "", (spec,), (spec,), layers, 0, "", Proof(0, 0, 0), {})


def block(hidden: list[int], steps: int = 1, outputs: int = 1, value: float = 0.95) -> Answers:
    columns, at = {}, 0
    for layer, size in enumerate(hidden):
        columns[layer] = {}
        for part in PARTS:
            columns[layer][part] = slice(at, at + size)
            at += size
    arrays = {"y": np.zeros((steps, outputs), np.float32)}
    return Answers(arrays, np.full((steps, at), value, np.float32), TraceLayout(columns), 0, steps)


def draw(hidden: list[int], width: int, **more: object) -> list[str]:
    answers = block(hidden)
    drawing = Drawing(model(hidden), answers.layout, width, PLAIN, **more)
    return [*drawing.header(), drawing.line(answers[0])]


def test_a_single_unit_has_its_gates_by_name_and_its_states_as_bars() -> None:
    assert draw([1], 80) == [
        "m version 3: LSTM 1",
        "gates: o open (> 0.9)  ▓▒░ between  - closed (< 0.1)",
        "  step          y  input  forget  cell       output  hidden",
        "     0     0.0000  o      o           │████  o           │████",
    ]


@pytest.mark.parametrize("hidden", [[1], [4], [3, 3], [7], [128], [128, 128], [2, 200], [64] * 6, [1] * 9])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(hidden: list[int], width: int) -> None:
    assert max(len(line) for line in draw(hidden, width)) <= width


def test_a_wide_layer_is_cut_and_the_header_says_by_how_much() -> None:
    lines = draw([128], 80)
    shown = lines[-1].count("o") // 3
    assert f"+{128 - shown} more units: --units and --layers choose" in lines


def test_chosen_units_are_drawn_and_no_others() -> None:
    lines = draw([128], 120, units=(0, 5, 9))
    assert lines[-1].count("o") == 9
    assert "+125 more units: --units and --layers choose" in lines


def test_a_step_without_a_trace_shows_its_outputs_only() -> None:
    answers = block([1], steps=2)
    untraced = tidegate.Answer({"y": np.ones(1)}, None, answers.layout, 7)
    assert Drawing(model([1]), answers.layout, 80, PLAIN).line(untraced) == "     7     1.0000"


def test_many_outputs_are_cut_and_said() -> None:
    answers = block([1], outputs=10)
    drawing = Drawing(model([1], 10), answers.layout, 100, PLAIN)
    assert any("+6 more outputs" in line for line in drawing.header())


def test_the_figure_has_the_gates_where_the_lesson_has_them() -> None:
    with FakeServer() as server, tidegate.connect(server.address) as client:
        answers = client.predict("toy", [[0, 0], [-9, 0]])
    labels = [line[:14].strip() for line in figure(answers)]
    assert labels == ["answer", "output gate", "forget, unit", "input gate", "step"]
    assert figure(answers)[1].split() == ["output", "gate", "o", "-"]


def test_an_answer_a_little_below_zero_is_written_without_a_sign() -> None:
    answers = block([1], steps=2)
    outputs = {"y": np.array([[-0.004], [-0.006]])}
    assert figure(Answers(outputs, answers.trace, answers.layout, 0, 2))[0].split() == ["answer", "0.00", "-0.01"]


def test_the_figure_shades_the_unit_by_what_it_holds() -> None:
    answers = block([1], steps=3)
    trace = np.array(answers.trace)
    trace[:, answers.layout.columns[0]["cell"]] = [[0], [-0.5], [1]]
    unit = figure(Answers(answers.outputs, trace, answers.layout, 0, 3))[2]
    assert unit.endswith("o       o ▒▒▒   o ███")
