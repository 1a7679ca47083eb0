from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import torch

from training.errors import DataError, TrainingError
from training.recipes import datafile, digits, glucose, text, vowels
from training.recipes.named import RECIPES

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, content: str) -> Path:
    path = folder / "some.csv.gz"
    path.write_bytes(gzip.compress(content.encode()))
    return path


def test_the_digits_are_parted_evenly_and_each_image_once() -> None:
    images, part_N = digits.load(datafile.read(digits.FILE), digits.FILE)
    assert images.x_BTF.shape == (1797, 64, 1)
    assert images.x_BTF.max() == 1
    parts = [sum(part_N == part for part in group).sum().item() for group in digits.split()]
    assert sum(parts) == 1797
    assert parts[2] == pytest.approx(1797 / 4, abs=6)


def test_the_vowels_keep_their_lengths_and_speakers() -> None:
    found = vowels.load(datafile.read(vowels.TEST_FILE))
    lengths_B = found.scored_BT.int().argmax(dim=1) + 1
    assert len(found) == 370
    assert (int(lengths_B.min()), int(lengths_B.max())) == (7, 29)
    assert found.scored_BT.sum(dim=1).tolist() == [1] * 370
    assert found.y[:, 0].bincount().tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert vowels.rows_of(found).shape == (int(lengths_B.sum()), 12)


def test_the_characters_of_a_window_follow_one_another() -> None:
    task = RECIPES["text"]().task()
    drawn = task.draw(0)
    symbols = [feature.name for feature in task.signature.outputs]
    read = "".join(symbols[int(code) - 1] for code in drawn.x_BTF[0, :, 0])
    following = "".join(symbols[int(code)] for code in drawn.y[0])
    assert read[1:] == following[:-1]
    assert read in datafile.read(text.FILE).text
    assert task.baselines["letter frequencies"]["bits_per_character"] == pytest.approx(4.8, abs=0.1)


def test_the_last_twentieth_of_a_text_is_never_drawn_in_training() -> None:
    training_N, validation_N, test_N = text.cut(torch.arange(1000))
    assert (len(training_N), len(validation_N), len(test_N)) == (940, 10, 50)
    assert torch.equal(torch.cat([training_N, validation_N, test_N]), torch.arange(1000))


RECORD = """isig,datetime,glucose
20.0,2010-03-24 10:00:00,100
nil,2010-03-24 10:05:00,110
21.0,2010-03-24 10:06:00,999
22.0,2010-03-24 10:10:00,120
23.0,2010-03-24 10:40:00,130
"""


def test_a_record_loses_doubles_flags_what_is_missing_and_counts_its_gaps(tmp_path: Path) -> None:
    found = glucose.load(datafile.read(written(tmp_path, RECORD)))
    assert found.x_NF.tolist() == [[20, 0, 100, 600], [20, 1, 110, 605], [22, 0, 120, 610], [23, 0, 130, 640]]
    assert found.segment_N.tolist() == [0, 0, 0, 1]
    assert (found.doubles, found.missing) == (1, 1)


def test_a_reading_is_scored_only_if_no_gap_lies_before_its_future() -> None:
    config = RECIPES["glucose"]()
    segment_N = torch.cat([torch.zeros(200), torch.ones(200)]).long()
    x_NF = torch.arange(400.0)[:, None].expand(-1, 4).clone()
    found = glucose.pieces(config, glucose.Record(x_NF, segment_N, 0, 0), slice(None))
    row_N = found.x_BTF[..., 0][found.scored_BT]
    assert torch.equal(found.y[found.scored_BT], torch.stack([row_N + 6, row_N + 12], dim=1))
    assert not ((row_N >= 188) & (row_N < 200)).any()
    assert row_N.min() == config.burn_in


@pytest.mark.parametrize(
    ("recipe", "content", "reason"),
    [
        ("digits", "1,2,3\n4,5,6\n", "expected 64 grey values and a digit in each line"),
        ("digits", "a,b\n", "could not convert"),
        ("text", "too short", "is too short: 9 characters"),
        ("glucose", "time,glucose\n1,2\n", "line 2: KeyError: 'datetime'"),
        ("glucose", "isig,datetime,glucose\n1,yesterday,2\n", "line 2: ValueError"),
        ("glucose", RECORD, "is longer than the"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_one_sentence(
    tmp_path: Path, recipe: str, content: str, reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        type(RECIPES[recipe]())(**{**vars(RECIPES[recipe]()), "data": written(tmp_path, content)}).task()


def test_a_vowel_with_too_few_channels_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: expected 12 channels"):
        vowels.load(datafile.read(written(tmp_path, "# a comment\n1,2:3,4:5\n")))


def test_a_missing_file_and_one_that_is_no_gzip_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        datafile.read(tmp_path / "none.gz")
    (tmp_path / "plain.gz").write_text("plain")
    with pytest.raises(DataError, match="BadGzipFile"):
        datafile.read(tmp_path / "plain.gz")
