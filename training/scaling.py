"""Raw units in, raw units out: the part of the graph that clients never see.

Legend: B batch, T time, F raw features, A angles, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Scaling:
    """The constants of a network's first and last nodes."""

    # input: (x - mean) / deviation, and the sine of some angles
    mean_F: Tensor
    deviation_F: Tensor
    turn_FA: Tensor
    phase_A: Tensor
    # output: x @ base + z * spread, where z is what the network's head gives
    base_FO: Tensor
    spread_O: Tensor

    @property
    def width(self) -> int:
        """How many numbers the recurrence gets."""
        return self.turn_FA.shape[0] + self.turn_FA.shape[1]

    def encoder(self) -> nn.Module:
        return Encoder(self)

    def decoder(self) -> nn.Module:
        return Decoder(self)

    def raw(self, noise_BTF: Tensor) -> Tensor:
        """Random numbers of deviation 1 in the units of the inputs."""
        return noise_BTF * self.deviation_F + self.mean_F


def standardise(x_NF: Tensor, outputs: int) -> Scaling:
    """Every feature to mean 0 and deviation 1 by the rows given; the answers are the head's own."""
    features = x_NF.shape[1]
    return Scaling(
        mean_F=x_NF.mean(dim=0),
        deviation_F=x_NF.std(dim=0).clamp(min=1e-6),
        turn_FA=torch.zeros(features, 0),
        phase_A=torch.zeros(0),
        base_FO=torch.zeros(features, outputs),
        spread_O=torch.ones(outputs),
    )


class Encoder(nn.Module):
    """Standardises every feature, and adds sines of those that go round (hour, month)."""

    mean_F: Tensor
    deviation_F: Tensor
    turn_FA: Tensor
    phase_A: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        for name in ("mean_F", "deviation_F", "turn_FA", "phase_A"):
            self.register_buffer(name, getattr(scaling, name))
        self._goes_round = scaling.phase_A.numel() > 0

    def forward(self, x_BTF: Tensor) -> Tensor:
        """[B, T, F] in raw units to [B, T, F + A]."""
        standard_BTF: Tensor = (x_BTF - self.mean_F) / self.deviation_F
        if not self._goes_round:
            return standard_BTF
        wave_BTA = torch.sin(x_BTF @ self.turn_FA + self.phase_A)
        return torch.cat([standard_BTF, wave_BTA], dim=-1)


class Decoder(nn.Module):
    """Turns the head's answer into raw units, as a change from a combination of the raw inputs."""

    base_FO: Tensor
    spread_O: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        for name in ("base_FO", "spread_O"):
            self.register_buffer(name, getattr(scaling, name))

    def forward(self, z_BTO: Tensor, x_BTF: Tensor) -> Tensor:
        """[B, T, O] of the head and [B, T, F] in raw units to [B, T, O] in raw units."""
        return x_BTF @ self.base_FO + z_BTO * self.spread_O
