from __future__ import annotations

import torch
from rich.console import Console

from training.examples.examples import Answers, Examples, answer, at_each_step, last_step, padded, steps_of
from training.examples.picture import picture, shade, short
from training.examples.task import Goal


class Echo(torch.nn.Module):
    """Answers with its input."""

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return x_BTF


def test_only_the_steps_that_are_scored_count() -> None:
    x_BTF = torch.tensor([[[1.0, 0.0], [0.0, 9.0]], [[5.0, 0.0], [7.0, 0.0]]])
    found = answer(Echo(), Examples(x_BTF, at_each_step(torch.tensor([1, 1]), 2), last_step(2, 2)))
    assert found.found_NO.tolist() == [[0.0, 9.0], [7.0, 0.0]]
    assert found.figures("classes")["accuracy"] == 0.5


def test_the_figures_of_numbers_are_the_mean_square_and_the_mean_distance() -> None:
    found = Answers(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]]))
    assert found.figures("numbers") == {"mean_squared_error": 4.5, "mean_absolute_error": 1.5}


def test_sequences_of_unequal_lengths_are_filled_up_and_masked() -> None:
    x_BTF, lengths_B = padded([torch.ones(2, 3), torch.ones(4, 3)])
    assert x_BTF.shape == (2, 4, 3)
    assert steps_of(lengths_B).tolist() == [[True, True, False, False], [True] * 4]
    assert x_BTF[0, 2:].sum() == 0


def test_a_goal_is_reached_from_its_own_side() -> None:
    assert Goal("accuracy", 0.9, higher=True).reached({"accuracy": 0.9})
    assert not Goal("accuracy", 0.9, higher=True).reached({"accuracy": 0.89})
    assert Goal("mean_squared_error", 0.1, higher=False).reached({"mean_squared_error": 0.1})
    assert str(Goal("accuracy", 0.9, higher=True)) == "accuracy >= 0.9"


def shown(answers: Answers, kind: str, names: list[str]) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(picture(answers, kind, names, {"this model": answers.figures(kind), "chance": {"accuracy": 0.5}}))
    return capture.get()


def test_the_picture_of_classes_counts_what_was_answered_instead() -> None:
    said = shown(Answers(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 0])), "classes", ["speaker_1", "speaker_2"])
    assert "▒ 1" in said
    assert "█ 1" in said
    assert "speaker" not in said


def test_the_picture_of_numbers_has_right_answers_on_its_diagonal() -> None:
    value_N1 = torch.linspace(-1, 3, 12)[:, None]
    said = shown(Answers(value_N1, value_N1), "numbers", ["sum"])
    rows = [line[:-1] for line in said.splitlines() if line.endswith("|")]
    columns = [row.rstrip().rfind("█") for row in rows]
    assert columns == sorted(columns, reverse=True)
    assert len(set(columns)) == len(rows)


def test_equal_values_are_drawn_too() -> None:
    assert "found (up)" in shown(Answers(torch.ones(3, 1), torch.ones(3, 1)), "numbers", ["sum"])


def test_shades_and_names_of_one() -> None:
    assert (shade(0), shade(1)) == (" ", "█")
    assert short(["sum"]) == ["sum"]
