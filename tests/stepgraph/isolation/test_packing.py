"""What is packed comes back as it was, and bytes that are damaged or foreign come back as nothing at all."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
import pytest

from stepgraph.isolation.packing import Corrupt, pack, unpack
from stepgraph.isolation.verdict import Proved, taken_apart
from stepgraph.loading import load

if TYPE_CHECKING:
    from tests.zoo import Zoo


@dataclass(frozen=True)
class Leaf:
    kind: Literal["a", "b"]
    size: int | None


@dataclass(frozen=True)
class Other:
    text: str


@dataclass(frozen=True, eq=False)
class Whole:
    parts: tuple[Leaf | Other, ...]
    pair: tuple[int, str]
    array: np.ndarray
    dtype: np.dtype
    known: frozenset[tuple[int, int]]
    ratio: float
    sure: bool
    nothing: Leaf | None


WHOLE = Whole(
    (Leaf("a", None), Other('"\ud800\n'), Leaf("b", 2**62)),
    (1, ""),
    np.arange(6, dtype=np.float16).reshape(2, 3).T,
    np.dtype("int64"),
    frozenset({(0, 1), (2, 3)}),
    float("nan"),
    sure=True,
    nothing=None,
)


def same(a: object, b: object) -> bool:
    """Whether two values are equal, to the bit and the type."""
    if is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, onnx.ModelProto):
        return bool(a == b)
    return a == b or (a != a and b != b)  # or both are NaN


def test_a_value_comes_back_as_it_was() -> None:
    assert same(unpack(Whole, pack(WHOLE)), WHOLE)


@pytest.mark.parametrize("name", ["pair", "wide", "tokens"])
def test_a_model_that_was_proved_comes_back_as_it_was(zoo: Zoo, name: str) -> None:
    proved = taken_apart(load(zoo.models / name / "1" / "model.onnx", 4, 1e-3))
    assert same(unpack(Proved, pack(proved)), proved)
    assert not any(part.size for cell in proved.graph.layers for part in cell.weights.x.values())


def test_no_flipped_bit_and_no_cut_goes_unnoticed() -> None:
    packed = pack(WHOLE)
    for place in range(len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(Corrupt):
            unpack(Whole, bytes(damaged))
        with pytest.raises(Corrupt):
            unpack(Whole, packed[:place])


@pytest.mark.parametrize(
    "foreign",
    [
        pack(Other("another type")),
        pack(Leaf("a", 1)),
        pickle.dumps(WHOLE),
        b"",
    ],
    ids=["another type", "a part", "a pickle", "nothing"],
)
def test_what_is_no_value_of_the_type_is_refused(foreign: bytes) -> None:
    with pytest.raises(Corrupt):
        unpack(Whole, foreign)


@pytest.mark.parametrize(
    "wrong",
    [Leaf("c", 1), Leaf("a", "1"), Leaf("a", 1.5), Leaf("a", True)],
    ids=str,  # type: ignore[arg-type]
)
def test_a_field_of_another_type_is_refused(wrong: Leaf) -> None:
    with pytest.raises(Corrupt):
        unpack(Leaf, pack(wrong))


def test_what_cannot_be_packed_is_said_at_once() -> None:
    with pytest.raises(TypeError, match="object cannot be packed"):
        pack((object(),))
