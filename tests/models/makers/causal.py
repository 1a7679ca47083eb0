"""What looks back over steps, as people write it in torch: convolutions, lags, windows of the last steps."""

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 3


class Dilated(nn.Module):
    """Causal convolutions with dilation, one of them by channel, around which the signal is added: a TCN."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(FEATURES, FEATURES, 3, dilation=2)
        self.second = nn.Conv1d(FEATURES, FEATURES, 2, dilation=5, groups=FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(functional.pad(x.transpose(1, 2), (4, 0))))
        return (y + torch.tanh(self.second(functional.pad(y, (5, 0))))).transpose(1, 2)


class Chomped(nn.Module):
    """A convolution that pads both sides, of which the end is cut off again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(FEATURES, FEATURES, 3, dilation=3, padding=6)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2))[:, :, :-6].transpose(1, 2)


def lagged(x: Tensor) -> Tensor:
    """What has changed since the step before."""
    return x - torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)


def padded(x: Tensor) -> Tensor:
    """Each step beside the one four steps before, which is 1 at the beginning."""
    return torch.cat([x, functional.pad(x, (0, 0, 4, 0), value=1.0)[:, : x.shape[1]]], 2)


def unfolded(x: Tensor) -> Tensor:
    """The last three steps side by side."""
    return functional.pad(x, (0, 0, 2, 0)).unfold(1, 3, 1).flatten(2)
