import json
from dataclasses import replace

from tests.tidegate.fake_server import find
from tidegate.cli.pages import page, table
from tidegate.drawing.glyphs import Style
from tidegate.drawing.names import column_names
from tidegate.model import Model

LONG = "many words " * 20
TOY = replace(
    Model.read(find("toy", 0)),
    metadata={
        "tidegate.description": LONG,
        "tidegate.provenance": json.dumps({"config": {"words": LONG}, "data": {"sha256": "", "source": "x"}}),
    },
)


def test_text_is_wrapped_at_the_terminals_width_and_at_a_hundred_in_a_wider_one() -> None:
    for width, most in ((80, 80), (200, 100)):
        lines = page(TOY, Style(), width)
        assert most - 12 < max(len(line) for line in lines) <= most
        assert " ".join(" ".join(lines).split()).count("many words") == 40


def test_nothing_that_a_model_file_says_moves_the_cursor_of_a_terminal_or_colours_it() -> None:
    evil = "x\x1b]0;title\x07\x1b[2J\r\x9b1m"
    model = replace(
        TOY,
        status="refused",
        reason=evil,
        inputs=tuple(replace(spec, name=evil, features=(evil,), units=(evil,)) for spec in TOY.inputs),
        layers=tuple(replace(layer, node=evil) for layer in TOY.layers),
        remarks=(evil,),
        metadata=dict.fromkeys(("tidegate.description", "tidegate.provenance", evil), evil),
    )
    shown = "\n".join([*page(model, Style()), *table([model], Style()), *column_names(model.inputs[0])])
    assert "\\x1b]0;title\\x07" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_what_the_provenance_leaves_empty_is_not_shown() -> None:
    assert "  data: source x" in page(TOY, Style())


def test_what_is_particular_about_a_model_is_said_on_its_page() -> None:
    said = "sequences run one by one, not in batches: the file fixes its batch axis"
    assert said in page(replace(TOY, remarks=(said,)), Style())
