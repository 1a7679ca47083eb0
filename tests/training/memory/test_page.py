"""The page is one well-formed file that needs nothing else, and draws the numbers that stand beside it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import torch
from rich.console import Console

from tests.training.memory.test_model_file import RECALL
from training.command import main
from training.errors import DataError
from training.memory import report as reporting
from training.memory.drawing.charts import rounded
from training.memory.drawing.plot import Plot, Scale
from training.memory.drawing.svg import element
from training.memory.experiments import carry_out
from training.memory.page import STYLE, inline
from training.memory.plan import Plan, planned, several
from training.memory.report import Own, report, rows_of
from training.memory.sections import tiny
from training.memory.starts import GRU, LSTM_BIAS, LSTM_CHRONO, RNN, STARTS

if TYPE_CHECKING:
    from pathlib import Path

    from training.memory.experiments import Outcome


def tiny_plan() -> Plan:
    groups = [several("temporal-order", STARTS, length, 3, 2, 1) for length in (10, 12)]
    groups += [several("adding", STARTS, length, 3, 2, 1) for length in (4, 6)]
    groups += [
        several("lesson", (LSTM_CHRONO,), 20, 1, 2, 1),
        several("latch", (RNN, LSTM_BIAS, LSTM_CHRONO), 5, 3, 2, 1),
    ]
    return planned("quick", 2, [*groups, several("text", (RNN, GRU, LSTM_BIAS), 12, 3, 2, 2)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a plan that takes seconds; the text is measured once for each network, and told as of two seeds."""
    folder = tmp_path_factory.mktemp("memory")
    torch.set_num_threads(1)
    plan = tiny_plan()
    first = [one for one in plan.experiments if one.seed == 0 or one.kind != "text"]
    (folder / "experiments").mkdir()
    for one in first:
        carry_out(one, folder / "experiments", lambda: False)
    for one in plan.experiments:
        if one not in first:
            file = folder / "experiments" / f"{replace(one, seed=0).name}.json"
            (folder / "experiments" / f"{one.name}.json").write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    report(plan, folder, 1, Own(RECALL, None), Console(file=io.StringIO()))
    return folder


def test_the_page_is_well_formed_and_asks_for_nothing_from_elsewhere(folder: Path) -> None:
    said = (folder / "memory.html").read_text(encoding="utf-8")
    body = re.sub(r"<meta[^>]*>", "", said.removeprefix("<!doctype html>"))
    ET.fromstring(body)  # noqa: S314 - our own page
    assert not re.search(r"(src|href)=|url\(|@import|<script|https?:", said)
    assert "nan" not in re.sub(r"<[^>]*>", " ", said).lower().split()


def test_every_class_that_a_picture_uses_has_a_style_and_dark_has_every_colour_of_light(folder: Path) -> None:
    said = (folder / "memory.html").read_text(encoding="utf-8")
    used = {name for classes in re.findall(r'class="([^"]*)"', said) for name in classes.split()}
    assert used <= set(re.findall(r"\.([a-z-]+)", STYLE))
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    names = re.findall(r"(--[a-z]+): #", light)
    assert set(names) == set(re.findall(r"(--[a-z]+): #", dark.split("* {")[0]))
    assert len(names) > 10


def test_each_section_is_there_and_says_the_readers_own_model(folder: Path) -> None:
    said = (folder / "memory.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", said)
    assert headings == [
        "The words, in a minute",
        "One unit that remembers",
        "Why a network forgets",
        "What training changes",
        "What it is worth",
        "How long a unit remembers",
        "How sharply gates decide",
        "Where an LSTM has no edge",
        "Your model",
        "How this was measured",
    ]
    assert "lstm_0" in said


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_numbers_beside_the_page_are_those_of_the_experiments(folder: Path) -> None:
    outcome: Outcome | None = carry_out(tiny_plan().experiments[0], folder / "experiments", lambda: False)
    assert outcome is not None
    found = [
        row
        for row in rows(folder, "gradients.csv")
        if (row["task"], row["length"], row["network"], row["seed"], row["when"])
        == ("temporal-order", "10", "RNN", "0", "after")
    ]
    assert [float(row["by_input"]) for row in found] == outcome.after.by_input
    assert len(rows(folder, "solved.csv")) == len(tiny_plan().experiments)
    assert {row["lag"] for row in rows(folder, "beginnings.csv")} == {str(lag) for lag in range(100)}
    assert len(rows(folder, "lesson.csv")) == 2 * 7


def test_a_table_says_how_many_seeds_solved_a_task(folder: Path) -> None:
    said = (folder / "memory.html").read_text(encoding="utf-8")
    assert "<td>RNN</td><td>0 of 2</td><td>0 of 2</td>" in said


def test_the_command_writes_the_page_and_says_where(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "quick").symlink_to(folder)
    monkeypatch.setattr("training.memory.command.quick", lambda _: tiny_plan())
    assert main(["memory", "--quick", "--jobs", "1", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{len(tiny_plan().experiments)} trainings, those that are finished left out: minutes\n")
    assert f"wrote {tmp_path}/quick/memory.html" in said


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--seeds", "0"], 2, "--seeds: 0 must be at least 1"),
        (["--jobs", "0"], 2, "--jobs: 0 must be at least 1"),
        (["--rows", "rows.csv"], 2, "--rows: are for a model"),
        (["--model", "none.onnx"], 1, "none.onnx does not exist"),
    ],
)
def test_a_wrong_use_is_one_line_before_any_training(
    arguments: list[str], status: int, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "carry_out_all", lambda *_: pytest.fail("it trains"))
    assert main(["memory", *arguments]) == status
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_rows_come_from_a_table_with_names_or_without(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for head in ("value,write\n", ""):
        path.write_text(f"{head}1,2e-1\n3,4\n")
        assert rows_of(path).tolist() == [[1, pytest.approx(0.2)], [3, 4]]
    path.write_text("1,2\n3,x\n")
    with pytest.raises(DataError, match=r"rows\.csv"):
        rows_of(path)


def test_numbers_of_a_picture_are_short_and_a_logarithmic_scale_keeps_to_its_frame() -> None:
    assert element("line", x1=1.0, y_1=2.3456) == '<line x1="1" y-1="2.35"/>'
    plot = Plot(10, 20, 100, 50, Scale(0, 10, ()), Scale(1e-4, 1, (1e-4, 1.0), log=True))
    assert plot.at(5, 1e-2) == (60, 45)
    assert plot.at(0, 1e-30) == (10, 70)
    assert plot.y.told(1e-4) == "10⁻⁴"
    assert (tiny(0.123), tiny(2.3e-20)) == ("0.12", "2e-20")
    for most, ticks in ((0.347, "0 0.1 0.2 0.3"), (2.31, "0 1 2"), (9.9, "0 2 4 6 8"), (1.0, "0 0.5 1")):
        assert " ".join(map(rounded(most).told, rounded(most).ticks)) == ticks


def test_words_may_be_emphasised_and_what_looks_like_a_tag_is_none() -> None:
    assert inline("*so* and `f < 1`") == "<em>so</em> and <code>f &lt; 1</code>"
