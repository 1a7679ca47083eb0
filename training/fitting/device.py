"""Where a fit computes: on the processor, or on a graphics card.

Tasks keep their data in the processor's memory, and so do losses: only what goes through the network is moved. Random
numbers are drawn on the processor, so that both begin with the same weights and see the same batches.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import torch

from training.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

Device = Literal["cpu", "cuda"]


def found(name: Device) -> torch.device:
    """The device of this process; of several processes on a machine each has a card of its own.

    Raises:
        ConfigError: there is no such card.
    """
    if name == "cpu":
        return torch.device("cpu")
    cards, place = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if not cards:
        why = "" if torch.version.cuda else f": torch {torch.__version__} is the build for processors alone"
        raise ConfigError(f"--device: cuda: no graphics card that torch can use{why}; leave --device out")
    if place >= cards:
        raise ConfigError(f"--device: cuda: {cards} graphics card(s), too few for process {place + 1} of this machine")
    return torch.device("cuda", place)


def through(network: nn.Module, *given: Tensor) -> Tensor:
    """What a network answers, in the processor's memory, wherever its weights are."""
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    answer: Tensor = network(*(tensor.to(device) for tensor in given))
    return answer.to("cpu")


def random_state(device: torch.device) -> dict[str, Tensor]:
    """What the numbers that are drawn next depend on; dropout draws its own on a card."""
    drawn = {"random": torch.get_rng_state()}
    return drawn | ({"random_cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    """Have the next numbers be drawn as after `random_state`; a card that had no part in it keeps its own."""
    torch.set_rng_state(state["random"])
    if device.type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"], device)
