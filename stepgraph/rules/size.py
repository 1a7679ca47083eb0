"""Sizes of tensors as polynomials in the number of sequences and of steps. Pure; knows no operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BATCH, STEPS = "B", "T"
Monomial = tuple[str, ...]  # factors in order; () is the constant


@dataclass(frozen=True)
class Size:
    """A whole number that depends on how many sequences and steps there are; `terms` are coefficients, none of them 0.

    Sizes stand for every number of sequences and steps from 1 on: two are equal only if they are for all of them.
    """

    terms: tuple[tuple[Monomial, int], ...]

    @property
    def constant(self) -> int:
        return dict(self.terms).get((), 0)

    def coefficient(self, *of: str) -> int:
        return dict(self.terms).get(of, 0)

    def holds(self, unknown: str) -> bool:
        return any(unknown in monomial for monomial, _ in self.terms)

    def __add__(self, other: Size | int) -> Size | int:
        terms = dict(self.terms)
        for monomial, count in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + count
        return _size(terms)

    def __mul__(self, other: Size | int) -> Size | int:
        terms = dict[Monomial, int]()
        for a, n in self.terms:
            for b, m in _terms(other).items():
                key = tuple(sorted(a + b))
                terms[key] = terms.get(key, 0) + n * m
        return _size(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Size | int:
        return self * -1

    def __sub__(self, other: Size | int) -> Size | int:
        return self + other * -1

    def __rsub__(self, other: Size | int) -> Size | int:
        return self * -1 + other


def size(*unknowns: str) -> Size:
    return Size(((tuple(sorted(unknowns)), 1),))


ITERATION = size("i")  # of a loop over the steps


def quotient(a: Size | int, b: Size | int) -> Size | int | None:
    """The quotient where that is whole for all numbers of sequences and steps; None elsewhere."""
    rest, whole = a, dict[Monomial, int]()
    if not b:
        return None
    by, count = _leading(b)
    while rest:
        monomial, n = _leading(rest)
        left = list(monomial)
        if n % count or any(left.count(unknown) < by.count(unknown) for unknown in by):
            return None
        for unknown in by:
            left.remove(unknown)
        whole[tuple(left)] = n // count
        rest = rest - _size({tuple(left): n // count}) * b
    return _size(whole)


def floor(a: Size | int, b: int) -> Size | int | None:
    """The quotient rounded down, where it is a polynomial: only its constant may be rounded down."""
    if b <= 0:
        return None
    terms = _terms(a)
    if any(monomial and n % b for monomial, n in terms.items()):
        return None
    return _size({monomial: n // b for monomial, n in terms.items()})


def compared(a: Size | int, b: Size | int) -> int | None:
    """-1, 0 or 1 where a is less than, equal to or more than b for all numbers of sequences and steps; else None."""
    if a == b:
        return 0
    least, most = _least(a, b), _least(b, a)
    return 1 if least is not None and least > 0 else -1 if most is not None and most > 0 else None


def at_least(a: Size | int, b: Size | int) -> bool:
    """Whether a is never less than b."""
    least = _least(a, b)
    return least is not None and least >= 0


def _least(more: Size | int, less: Size | int) -> int | None:
    """The least that the one can be above the other; None if there is no such number."""
    apart = more - less
    if not isinstance(apart, Size):
        return apart
    if any(n < 0 for monomial, n in apart.terms if monomial):
        return None
    return sum(n for monomial, n in apart.terms if "i" not in monomial)  # an iteration's number may be 0


def _leading(number: Size | int) -> tuple[Monomial, int]:
    """The term of the highest degree, the last of them in the order of the letters."""
    return max(_terms(number).items(), key=lambda term: (len(term[0]), term[0]))


def _terms(number: Size | int) -> Mapping[Monomial, int]:
    if isinstance(number, Size):
        return dict(number.terms)
    if number != int(number):
        raise ValueError(f"{number} is no size")
    return {(): int(number)} if number else {}


def _size(terms: Mapping[Monomial, int]) -> Size | int:
    kept = {monomial: n for monomial, n in terms.items() if n}
    if not kept.keys() - {()}:
        return kept.get((), 0)
    return Size(tuple(sorted(kept.items())))
