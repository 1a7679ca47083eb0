"""A graphics card made of the processor: tensors that were moved to it refuse to be computed with others.

So a fit "on a card" is tested where there is none, with the very numbers of the processor. torch knows it as the device
"meta", which needs no driver.
"""

# ruff: noqa: ANN401 - torch gives what it has
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from training.fitting.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.config import Config

CARD = torch.device("meta")


class OnCard(torch.Tensor):
    """A tensor in the card's memory."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls: type[Self], inner: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CARD,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, operator: Any, types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_flatten((given, named or {}))[0] if isinstance(leaf, torch.Tensor)]
        elsewhere = [one for one in tensors if not isinstance(one, OnCard) and one.dim()]
        if elsewhere and operator is not torch.ops.aten.copy_.default:  # which is what moves them
            raise RuntimeError(f"{operator}: {len(elsewhere)} of {len(tensors)} tensors are not on the card")
        arguments, keywords = tree_map(unwrapped, (given, named or {}))
        found = operator(*arguments, **keywords)
        if operator._schema.is_mutable:
            return given[0] if operator._schema.returns else None
        return tree_map(lambda leaf: OnCard(leaf) if isinstance(leaf, torch.Tensor) else leaf, found)


def unwrapped(leaf: Any) -> Any:
    if isinstance(leaf, torch.device) and leaf == CARD:
        return torch.device("cpu")
    return leaf.inner if isinstance(leaf, OnCard) else leaf


class ToCard(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: torch.Tensor) -> torch.Tensor:
        return OnCard(tensor.detach().clone())

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.inner if isinstance(gradient, OnCard) else gradient


class FromCard(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: torch.Tensor) -> torch.Tensor:
        assert isinstance(tensor, OnCard)
        return tensor.inner.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return OnCard(gradient)


class Card(TorchFunctionMode):
    """While entered, `.to(CARD)` and tensors that are made there work."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = dict(named or {})
        if function is torch.Tensor.to and len(given) > 1 and isinstance(given[1], (torch.device, str)):
            return self.to(given[0], torch.device(given[1]))
        if named.get("device") == CARD:
            return OnCard(function(*given, **named | {"device": "cpu"}))
        return function(*given, **named)

    def fetched(self, tree: Any) -> Any:
        """The same values in the processor's memory, as a file on the disk has them."""
        return tree_map(lambda leaf: leaf.detach().inner if isinstance(leaf, OnCard) else leaf, tree)

    def to(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        there = isinstance(tensor, OnCard)
        if there == (device == CARD):
            return tensor
        self.moved += 1
        found: torch.Tensor = (FromCard if there else ToCard).apply(tensor)  # type: ignore[no-untyped-call]
        return found


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    trainer.restore_best()
    return trainer.network.state_dict()


def assert_the_same_on_both(config: Config, steps: int) -> None:
    """Fits on both: torch takes the layers apart on the card, so that the last digits may differ."""
    expected = Trainer(config, config.task())
    expected.fit(steps)
    there = replace(config, device="cuda")
    found = Trainer(there, there.task())
    assert {type(parameter.data) for parameter in found.network.parameters()} == {OnCard}
    found.fit(steps)
    here = weights(expected)
    for name, value in weights(found).items():
        assert type(value) is torch.Tensor, name
        torch.testing.assert_close(value, here[name], rtol=1e-4, atol=1e-5)
