"""`python ml_agents.py FILE`: a policy with a memory, exported by Unity ML-Agents' own classes and its own exporter.

No package holds such a file: Unity's examples lie in its repository alone. What only talks to Unity is left empty, as
the package's messages need an older protobuf.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

EMPTY = ("h5py", "mlagents.plugins", "mlagents.trainers.cli_utils", "tensorboard")
EMPTY += tuple(f"mlagents_envs.{name}" for name in ("communicator_objects", "environment", "rpc_", "side_channel"))


class Empty(MetaPathFinder, Loader):
    """Modules of which everything can be imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        return ModuleSpec(name, self, is_package=True) if name.startswith(EMPTY) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


def export(file: str) -> None:
    """A policy with two continuous and two discrete actions, which remembers."""
    from mlagents.trainers.settings import NetworkSettings
    from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
    from mlagents.trainers.torch_entities.networks import SimpleActor
    from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

    torch.manual_seed(0)
    seen = [ObservationSpec((12,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "seen")]
    memory = NetworkSettings.MemorySettings(sequence_length=8, memory_size=64)
    settings = NetworkSettings(normalize=True, hidden_units=32, num_layers=2, memory=memory)
    behaviour = BehaviorSpec(seen, ActionSpec(2, (3, 2)))
    actor = SimpleActor(seen, settings, behaviour.action_spec)
    policy = SimpleNamespace(actor=actor, behavior_spec=behaviour, export_memory_size=actor.memory_size)
    torch.onnx.export = partial(torch.onnx.export, dynamo=False)
    ModelSerializer(policy).export_policy_model(file.removesuffix(".onnx"))


if __name__ == "__main__":
    sys.meta_path.insert(0, Empty())
    vars(np)["float"] = float  # which the package still names so
    export(sys.argv[1])
