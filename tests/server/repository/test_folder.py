"""The folder of models as it may be found: what is wrong with one thing in it hurts no other."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from server.repository import folder
from server.repository.folder import Stray

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65_534


def put(models: Path, name: str, version: str) -> Path:
    path = models / name / version / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_text("good", encoding="utf-8")
    return path


@pytest.fixture
def models() -> Iterator[Path]:
    """A folder of models, looked at by a user who may not read everything."""
    with TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        put(Path(made), "good", "1")
        yield Path(made)


def look_as_anybody(models: Path) -> folder.Look:
    """What a user sees who is not root, as whom tests may run."""
    if os.geteuid():
        return folder.look(models)
    os.seteuid(NOBODY)
    try:
        return folder.look(models)
    finally:
        os.seteuid(0)


def test_versions_of_any_number_of_digits_that_fit_64_bits_are_found_and_others_are_strays(models: Path) -> None:
    versions = ["20231128083000", str(2**64 - 1), str(2**64), "1" * 200, "0"]
    for version in versions:
        put(models, "m", version)
    seen = folder.look(models)
    assert {version for name, version in seen.models if name == "m"} == {20231128083000, 2**64 - 1}
    assert {(stray.path.parent.name, stray.reason) for stray in seen.strays} == {
        (str(2**64), f"the version '{2**64}' is above {2**64 - 1}"),
        ("1" * 200, f"the version '{'1' * 200}' is above {2**64 - 1}"),
        ("0", "the version '0' is no whole number from 1 on"),
    }


def test_of_two_folders_of_one_version_the_plain_one_is_served(models: Path) -> None:
    put(models, "m", "01")
    plain = put(models, "m", "1")
    seen = folder.look(models)
    assert seen.models["m", 1].path == plain
    assert seen.strays == (Stray(models / "m" / "01" / "model.onnx", "version 1 is there already, in '1'"),)


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o311])
def test_a_version_whose_folder_has_wrong_rights_is_found_with_its_fault(models: Path, mode: int) -> None:
    place = put(models, "m", "2").parent
    put(models, "m", "1")
    place.chmod(mode)
    seen = look_as_anybody(models)
    place.chmod(0o755)
    assert seen.models["m", 2].fault == "its folder cannot be read: Permission denied"
    assert not seen.models["m", 1].fault
    assert not seen.models["good", 1].fault


def test_a_model_whose_folder_cannot_be_read_is_said_to_be_closed(models: Path) -> None:
    put(models, "m", "1")
    (models / "m").chmod(0)
    seen = look_as_anybody(models)
    (models / "m").chmod(0o755)
    assert seen.closed == {"m": "its folder cannot be read: Permission denied"}
    assert seen.strays == (Stray(models / "m", seen.closed["m"]),)
    assert seen.models.keys() == {("good", 1)}


def test_a_link_to_nothing_a_folder_and_a_pipe_of_that_name_are_found_with_their_fault(models: Path) -> None:
    for version in "123":
        put(models, "m", version).unlink()
    (models / "m" / "1" / "model.onnx").symlink_to("nowhere")
    (models / "m" / "2" / "model.onnx").mkdir()
    os.mkfifo(models / "m" / "3" / "model.onnx")
    seen = folder.look(models)
    assert seen.models["m", 1].fault == "'model.onnx' links to a file that is not there"
    for version in (2, 3):
        assert seen.models["m", version].fault == "'model.onnx' is no ordinary file, and only those are read"


def test_a_name_that_is_no_text_hurts_only_itself(models: Path) -> None:
    for name in (os.fsdecode(b"\xff\xfe"), "two\nlines"):
        (models / name / "1").mkdir(parents=True)
    (models / "circle").symlink_to("circle")
    seen = folder.look(models)
    assert seen.models.keys() == {("good", 1)}
    assert [stray.reason for stray in seen.strays] == ["its name is no text that can be printed"] * 2
    assert all(str(stray.path).isprintable() for stray in seen.strays)


def test_a_folder_of_models_that_cannot_be_read_at_all_is_an_error(models: Path) -> None:
    models.chmod(0)
    with pytest.raises(PermissionError):
        look_as_anybody(models)
