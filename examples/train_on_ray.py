"""Fit a table on the machines of a Ray cluster: each worker takes its share of every batch, the first one writes.

    pip install "ray[train]"
    python examples/train_on_ray.py 2 FILE --target COLUMN [any option of `python -m training table`]

The command is the same as torchrun's: `torchrun --nproc-per-node 2 -m training table FILE --target COLUMN`.
"""

import sys
from pathlib import Path
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

ROOT = str(Path(__file__).resolve().parents[1])


def work(options: dict[str, Any]) -> None:
    """What each worker does: Ray has joined them already, as torchrun does by its environment variables."""
    from training.command import main  # noqa: PLC0415 - in the worker

    status = main(["table", *options["arguments"]])
    if status:
        raise RuntimeError(f"the training ended with status {status}")


if __name__ == "__main__":
    workers, *arguments = sys.argv[1:]
    # A worker has a working directory of its own: files and folders are named from here.
    files = [str(Path(text).resolve()) if Path(text).is_file() else text for text in arguments]
    for folder in ("runs", "models"):
        files += [] if f"--{folder}" in arguments else [f"--{folder}", str(Path(folder).resolve())]
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": ROOT}})
    TorchTrainer(
        work,
        train_loop_config={"arguments": files},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=int(workers)),
    ).fit()
