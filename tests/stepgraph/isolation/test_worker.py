"""What the worker does with a file: each job parses its graph once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from stepgraph.file import content
from stepgraph.isolation import worker
from tests.hostile_models import lstm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("job", "more"), [("load", {"max_batch": 1, "patience": 0.0}), ("examine", {})])
@pytest.mark.parametrize("beside", [False, True])
def test_a_graph_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, more: dict[str, float], beside: bool
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(lstm(), path, save_as_external_data=beside, location="weights", size_threshold=0)
    parsed: list[bytes] = []
    parse = content.parse

    def counted(data: bytes) -> onnx.ModelProto:
        parsed.append(data)
        return parse(data)

    monkeypatch.setattr(content, "parse", counted)
    worker.JOBS[job](str(path), **more)
    assert parsed == [path.read_bytes()]


def test_a_folder_in_the_place_of_a_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    from pathlib import Path

    (tmp_path / "model.onnx").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(IsADirectoryError):
            content.outer(tmp_path / "model.onnx")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
