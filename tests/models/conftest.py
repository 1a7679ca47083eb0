from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Writes a network as torch's TorchScript exporter does, with a model.toml beside it if there is text for one."""

    def run(
        net: nn.Module,
        args: tuple[Tensor, ...],
        inputs: str,
        outputs: str,
        axes: dict[str, dict[int, str]],
        toml: str = "",
    ) -> Path:
        path = tmp_path / "model.onnx"
        names = {"input_names": inputs.split(), "output_names": outputs.split()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            torch.onnx.export(net.eval(), args, str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names)
        if toml:
            path.with_name("model.toml").write_text(toml)
        return path

    return run
