from __future__ import annotations

import pytest

from training.recipes.full import FORMS, PAGE, Form, Row, page, story
from training.recipes.named import RECIPES


def test_each_recipe_has_one_form_that_must_reach_its_goal() -> None:
    assert sorted(form.recipe for form in FORMS if form.must) == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_file_of_a_recipe_names_its_paper_its_table_and_how_ours_differs(name: str) -> None:
    said = story(name)
    for part in ("Paper: ", "|---|", "How ours differs: "):
        assert part in said


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_in_docs_says_what_the_files_say(name: str) -> None:
    said = PAGE.read_text(encoding="utf-8")
    assert story(name) in said
    assert RECIPES[name]().task().goal.figure.replace("_", " ") in said


def test_a_goal_that_was_missed_is_a_failure_only_where_it_must_be_reached() -> None:
    report = {"model": {"accuracy": 0.5}, "goal": "accuracy >= 0.9", "reached": False, "chance": {"accuracy": 0.25}}
    rows = [Row(Form("vowels", "LSTM", must=must), 8, 1234, 10, report) for must in (True, False)]
    assert [row.failed for row in rows] == [True, False]
    assert "| LSTM of 8 | 1,234 | 10 | accuracy 0.5 | no |" in page(rows)
    assert "| *chance* | | | accuracy 0.25 | |" in page(rows)
