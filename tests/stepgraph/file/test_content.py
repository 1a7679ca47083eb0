"""A model's files are read once; weights may lie beside model.onnx, and nowhere else."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from stepgraph.errors import ModelRefused
from stepgraph.file import content
from tests.hostile_models import lstm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model whose weights lie beside it, in the file `weights`."""
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    onnx.save(lstm(), path, save_as_external_data=True, location="weights", size_threshold=0)
    return path


def point(path: Path, **entries: str | None) -> None:
    """Has the file say something else of where the tensor W lies; None leaves it out."""
    model = onnx.load(path, load_external_data=False)
    (tensor,) = (t for t in model.graph.initializer if t.name == "W")
    said = {e.key: e.value for e in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in said.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def test_weights_beside_the_model_are_taken_in_as_they_are(path: Path) -> None:
    read = content.read(path)
    assert read.model.graph == lstm().graph
    assert read.prints.weights == {"weights": hashlib.sha256(path.with_name("weights").read_bytes()).hexdigest()}
    assert read.prints.still_hold(path)
    assert read.prints.whole != read.prints.model


def test_weights_that_were_renamed_with_their_model_are_found(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "net.onnx.data"
    path.write_bytes(model.SerializeToString())
    path.with_name("weights").rename(path.with_name("model.onnx.data"))
    read = content.read(path)
    assert read.model.graph == lstm().graph
    assert list(read.prints.weights) == ["model.onnx.data"]
    assert read.prints.still_hold(path)


def test_weights_that_may_lie_in_either_of_two_files_are_not_guessed(path: Path) -> None:
    point(path, location="net.onnx.data")
    for name in ("a.onnx.data", "b.onnx.data"):
        path.with_name(name).write_bytes(b"")
    with pytest.raises(ModelRefused, match=r"'net\.onnx\.data', and that file cannot be read"):
        content.read(path)


def test_a_file_of_more_than_2_gib_is_refused_for_that_and_not_read(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ModelRefused, match=r"the file has 2\.0 GiB, .* Save it with its weights in a file beside it"):
        content.read(path)


def test_a_model_in_one_file_has_the_hash_of_that_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(lstm().SerializeToString())
    assert content.read(path).prints.whole == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_model_toml_says_is_part_of_the_hash_and_without_one_the_hash_is_that_of_the_rest(path: Path) -> None:
    beside = path.with_name("model.toml")
    hashes = [content.read(path).prints.whole]
    model, weights = (hashlib.sha256(path.with_name(name).read_bytes()).hexdigest() for name in (path.name, "weights"))
    lines = f"{model}\n{weights}  weights\n"
    assert hashes == [hashlib.sha256(lines.encode()).hexdigest()]
    for said in ("", "[fixed]\ngain = 1.0\n", "[fixed]\ngain = 3.0\n"):
        beside.write_text(said, encoding="utf-8")
        hashes.append(content.read(path).prints.whole)
    assert len(set(hashes)) == 4


def test_weights_in_a_folder_below_and_in_a_constant_of_a_node_are_taken_in(path: Path) -> None:
    below = path.parent / "deep" / "er"
    below.mkdir(parents=True)
    below.joinpath("w").write_bytes(b"before" + path.with_name("weights").read_bytes())
    point(path, location="deep/er/w", offset="6")
    assert content.read(path).model.graph == lstm().graph


@pytest.mark.parametrize(
    "location",
    [
        "../weights",
        "/etc/passwd",
        "a/../../weights",
        "..\\weights",
        "C:\\weights",
        "\\\\host\\weights",
        "",
        "a\0b",
        "..",
    ],
)
def test_a_location_outside_the_folder_is_refused_by_the_tensor_s_name(path: Path, location: str) -> None:
    path.parent.with_name("weights").write_bytes(path.with_name("weights").read_bytes())
    point(path, location=location)
    with pytest.raises(ModelRefused, match=r"tensor 'W' wants its weights from .*only files in the model's own folder"):
        content.read(path)


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(path: Path, tmp_path: Path) -> None:
    weights = path.with_name("weights")
    weights.rename(tmp_path / "outside")
    weights.symlink_to(tmp_path / "outside")
    with pytest.raises(ModelRefused, match=r"tensor 'W' .*links to a file outside the model's own folder"):
        content.read(path)
    weights.unlink()
    (tmp_path / "outside").rename(path.with_name("inside"))
    weights.symlink_to("inside")
    assert content.read(path).model.graph == lstm().graph


def test_a_link_to_a_folder_outside_is_refused_too(path: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    path.with_name("weights").rename(tmp_path / "outside" / "weights")
    path.with_name("below").symlink_to(tmp_path / "outside")
    point(path, location="below/weights")
    with pytest.raises(ModelRefused, match="links to a file outside"):
        content.read(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": str(2**62)}, "wants the bytes 4611686018427387904 to 4611686018427388096 of 'weights', which has"),
        ({"length": str(2**62)}, "wants the bytes 0 to 4611686018427387904 of 'weights'"),
        ({"offset": "-1"}, "gives '-1' as the offset"),
        ({"offset": "1e3"}, "gives '1e3' as the offset"),
        ({"length": "9" * 5_000}, "gives '9999"),
        ({"length": "4"}, r"declares the shape \[1, 16, 3\], which takes 192 bytes, and 4 are there"),
        ({"location": "nothing"}, "'nothing', and that file cannot be read: No such file or directory"),
        ({"location": "."}, "'.'"),
    ],
    ids=["offset", "length", "negative", "no number", "endless number", "too little", "missing", "a folder"],
)
def test_a_place_that_does_not_hold_the_weights_is_refused(path: Path, entries: dict[str, str], words: str) -> None:
    point(path, **entries)
    with pytest.raises(ModelRefused, match=f"tensor 'W'.*{words}"):
        content.read(path)


def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_at_once(path: Path) -> None:
    path.with_name("weights").unlink()
    os.mkfifo(path.with_name("weights"))
    with pytest.raises(ModelRefused, match="'weights' is no ordinary file"):
        content.read(path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"[state", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"x = " + b"[" * 20_000, "cannot be read"),
        (b"#" * 100_000, "has 100000 bytes; at most"),
        (b"[other]\n", "holds other; expected"),
        (b"state = 1\n", "expected the tables"),
        (b"[state]\nx = 1\n", "says that 'x' becomes 1; expected the name of an output"),
    ],
    ids=["cut", "no text", "nested", "huge", "unknown", "no table", "no name"],
)
def test_a_sidecar_that_says_nothing_sensible_is_refused(path: Path, said: bytes, words: str) -> None:
    path.with_name("model.toml").write_bytes(said)
    with pytest.raises(ModelRefused, match=f"model.toml .*{words}"):
        content.read(path)


@pytest.mark.parametrize("value", ["1e400", "[[1], [2, 3]]", "nan", "'text'", "9223372036854775807", "[1, 2, 3, 4]"])
def test_a_fixed_value_that_does_not_fit_is_refused(tmp_path: Path, value: str) -> None:
    from stepgraph.loading import load

    path = tmp_path / "model.onnx"
    model = lstm()
    model.graph.input.append(onnx.helper.make_tensor_value_info("rate", onnx.TensorProto.INT32, []))
    path.write_bytes(model.SerializeToString())
    path.with_name("model.toml").write_text(f"[fixed]\nrate = {value}\n", encoding="utf-8")
    with pytest.raises(ModelRefused, match=r"model.toml fixes 'rate' to .*does not fit"):
        load(path, 1, 0.0)


CHANGES: dict[str, Callable[[Path], object]] = {
    "model": lambda path: path.write_bytes(path.read_bytes() + b"\x00"),
    "weights": lambda path: path.with_name("weights").write_bytes(np.zeros(500, np.uint8).tobytes()),
    "sidecar": lambda path: path.with_name("model.toml").write_text("", encoding="utf-8"),
    "gone": lambda path: path.with_name("weights").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_prints_hold_no_longer_once_any_of_the_files_is_another(path: Path, change: str) -> None:
    prints = content.read(path).prints
    assert prints.still_hold(path)
    CHANGES[change](path)
    assert not prints.still_hold(path)
