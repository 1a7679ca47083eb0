"""Compares a step graph with the original file over hundreds of steps, and with the numbers that the file itself names.

A short random sequence does not show an operator that reaches back thirty steps, nor what a file does at -999. So one
long sequence goes through both: longer than every constant that could be a reach in steps, and with the thresholds that
the file compares its inputs with among its numbers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from stepgraph.errors import Imprecise, ModelRefused, StepFailed
from stepgraph.proving import difference, explanation
from stepgraph.proving.diagnosis import Bounds
from stepgraph.proving.difference import Compared, Difference, errors
from stepgraph.proving.hints import Hints
from stepgraph.proving.reference import Data, Reference, begin, sequences, size
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.running.engine import Engine

_PREFIXES = 6  # lengths that are compared of a file that answers once for all steps, from `_START` on
_FEWER = 2  # so many, if reading found nothing
_NOISE = 1e-6  # by which the inputs and the states are moved to see how much of a difference is rounding
_START, _GROWN = 13, 1e4  # numbers that are so many times those of the first steps have no bound
_LOST = 1e-2  # where rounding has grown to so much, nothing can be told from it
AMPLIFIED = 30.0  # times what that makes is still rounding
_MARKED = 0.1  # of the numbers are thresholds
_WIDE, _MOST = 2**17, 2**25  # numbers of a step, in inputs and outputs together, and of all steps where they are wide
_HEAVY = 2**27  # bytes of weights, for which a step takes some hundredths of a second
_READ = 300 * 2**29  # bytes of weights that steps read, one after the other, in half a minute
_WHOLE = (-100, -7, -1, 0, 1, 2, 7, 100)  # numbers for inputs of a type of whole ones, beside 0 and 1
_NUMBERS = 4096  # of a row are compared over so many steps; the shorter sequences compare all


@dataclass(frozen=True)
class Outcome:
    """The first difference that is too large, if there is one; over how many steps; and the largest that is not.

    `rounding`: moving the file's last digits leads it as far from itself.
    """

    apart: Difference | None
    steps: int
    largest: float = 0.0
    rounding: bool = False


def first_beyond(
    reference: Reference, facts: Facts, engine: Engine, found: Hints, bounds: Bounds, *, few: bool = False
) -> Outcome:
    """The first difference in a long sequence that is more than `same`, and more than what rounding can grow to.

    Fewer steps than `found.steps` are compared where the original's own numbers say nothing any more. A
    file that answers once for all steps is run for `few` lengths, if it is known to be local; one with heavy weights is
    then run for one sequence, of some hundred steps up to half a GiB, and further only as its constants reach. What is
    known to be local may also be as far apart as moving its last digits makes it, up to `other`.
    """
    data = rows(reference, facts, engine if few else None, found)
    begun = _begun(reference, facts, data, found.thresholds)
    told, asked = Outcome(None, 0), Asked(_FEWER if few else _PREFIXES, digits=bounds.other if few else 0.0)
    for states in (begun, {}) if begun else ({},):  # what rounding hides from the one beginning shows from the other
        answers = engine.run(data, begin(engine.graph, size(data)[1], states), trace=False).outputs
        now = first_apart(reference, facts, data, answers, bounds.same, replace(asked, begun=states))
        told = replace(now, steps=max(told.steps, now.steps), largest=max(told.largest, now.largest))
        if told.apart is not None or told.steps == size(data)[0]:
            break
    return told


@dataclass(frozen=True)
class Asked:
    """What to run the file for: the answers to so many prefixes, where it answers once; or the last step alone.

    From zeros, or from the states `begun`. Differences of up to `digits` are told from what its last digits make.
    """

    prefixes: int = _PREFIXES
    last: bool = False
    digits: float = 0.0
    begun: Data = field(default_factory=dict)


def first_apart(
    reference: Reference, facts: Facts, data: Data, answers: Mapping[str, np.ndarray], same: float, asked: Asked
) -> Outcome:
    """As `first_beyond`, of answers [T, B, ...row] to these steps from a new sequence's state on."""
    compared = [
        Compared(f"output '{port.name}'", steps, _some(values), _some(answers[port.name][steps]), port.unit)
        for port, steps, values in wanted(reference, facts, data, asked)
    ]
    end = min(map(_end, compared))
    told = [_until(end, each) for each in compared]
    if difference.first_beyond(told, same) is None:
        return Outcome(None, end, _largest(told))
    otherwise = wanted(reference, facts, moved(data), replace(asked, begun=moved(asked.begun)))
    noise = _noise(compared, otherwise)
    end = min(end, *(_first(c, AMPLIFIED * each > _LOST) for c, each in zip(compared, noise, strict=True)))
    told = [_until(end, each) for each in compared]
    bounds = [np.fmax(same, AMPLIFIED * each[: len(t.steps)]) for each, t in zip(noise, told, strict=True)]
    apart = difference.first_beyond(told, bounds)
    if apart is None or not asked.digits:
        return Outcome(apart, end, _largest(told))
    noise = _noise(compared, wanted(reference.inexact(), facts, data, asked))
    rounding = [np.fmax(b, AMPLIFIED * each[: len(b)]) for b, each in zip(bounds, noise, strict=True)]
    most = [np.fmax(b, np.fmin(asked.digits, each)) for b, each in zip(bounds, rounding, strict=True)]
    apart = difference.first_beyond(told, most)
    return Outcome(apart, end, _largest(told), apart is not None and difference.first_beyond(told, rounding) is None)


def _noise(
    compared: Sequence[Compared], otherwise: Iterator[tuple[Port, Sequence[int], np.ndarray]]
) -> list[np.ndarray]:
    others = (_some(values) for _, _, values in otherwise)
    return [errors(c.wanted, o, c.unit, since_start=False) for c, o in zip(compared, others, strict=True)]


def _largest(told: Sequence[Compared]) -> float:
    return max((float(each.errors.max(initial=0)) for each in told), default=0.0)


def _some(y: np.ndarray) -> np.ndarray:
    """The numbers [T, B, ...row], or [T, B, n] of them spread evenly where a row has very many."""
    rows = y.reshape(*y.shape[:2], -1)
    picked = np.linspace(0, rows.shape[2] - 1, _NUMBERS).astype(int)
    return rows[..., picked] if rows.shape[2] > _NUMBERS else y


def _end(compared: Compared) -> int:
    """The step from which on the original's numbers prove nothing: they are NaN, or have grown without a bound."""
    sizes = np.abs(compared.wanted).astype(np.float64).reshape(len(compared.wanted), -1).max(1, initial=0)
    bound = _GROWN * max(1.0, float(np.nan_to_num(sizes[:_START]).max(initial=0)))
    return _first(compared, ~(sizes <= bound))


def _first(compared: Compared, strange: np.ndarray) -> int:
    """The first step that is strange; one beyond the last if none is."""
    return compared.steps[int(strange.argmax())] if strange.any() else compared.steps[-1] + 1


def _until(end: int, compared: Compared) -> Compared:
    count = sum(step < end for step in compared.steps)
    return replace(compared, steps=compared.steps[:count], wanted=compared.wanted[:count], got=compared.got[:count])


def wanted(
    reference: Reference, facts: Facts, data: Data, asked: Asked
) -> Iterator[tuple[Port, Sequence[int], np.ndarray]]:
    """What the original answers for each output: at which steps, and [T, B, ...row]."""
    for port, steps, values in _answered(reference, facts, data, asked):
        yield port, steps[-1:] if asked.last else steps, values[-1:] if asked.last else values


def _answered(
    reference: Reference, facts: Facts, data: Data, asked: Asked
) -> Iterator[tuple[Port, Sequence[int], np.ndarray]]:
    length, _ = size(data)
    if facts.one_step:
        answers = [answer.outputs for answer in reference.answers(data, asked.begun)]
        yield from ((port, range(length), np.stack([a[port.name] for a in answers])) for port in facts.outputs)
        return
    last = reference.last(data, asked.begun)
    steps, start = range(facts.lead, length), facts.lead + _START
    yield from ((p, steps, p.steps(last.whole[p.name])) for p in facts.outputs if p.time is not None)
    once = [port for port in facts.outputs if port.time is None]
    several = once and asked.prefixes > 1 and length > start
    lengths = np.geomspace(start, length, asked.prefixes).astype(int).tolist() if several else [length]
    prefixes = ({name: x[:steps] for name, x in data.items()} for steps in lengths[:-1])
    ends = [*(reference.last(prefix, asked.begun) for prefix in prefixes), last]
    yield from ((p, [n - 1 for n in lengths], np.stack([end.outputs[p.name] for end in ends])) for p in once)


def rows(reference: Reference, facts: Facts, engine: Engine | None, found: Hints) -> Data:
    """What the long sequences are given, [T, B, ...row] by input; fewer if the `engine` has heavy weights."""
    heavy = sum(each.nbytes for each in engine.graph.weights.values()) if engine else 0
    data = _data(facts, found, heavy)
    return data | _whole(reference, facts, data)


def _data(facts: Facts, found: Hints, weights: int = 0) -> Data:
    """Random numbers, and in one sequence thresholds and what lies to both sides, alone and in runs; [T, B, ...row]."""
    length, batch = _size(facts, found)
    if weights > _HEAVY:
        length, batch = max(found.least, min(length, _READ // weights)), 1
    data = sequences(facts, length, batch, seed=1)
    random = np.random.default_rng(2)
    for port in facts.inputs:
        values = _near(found.thresholds, port)
        if not len(values):
            continue
        if port.time is None and not facts.one_step:
            data[port.name][:, -1] = _with(values, data[port.name][0, -1], random)
            continue
        marked = data[port.name][length // 4 :, -1]
        single = random.random(marked.shape) < _MARKED
        marked[single] = random.choice(values, int(single.sum()))
        for start in range(10, len(marked) - 50, 50):
            marked[start : start + random.integers(2, 40)] = random.choice(values)
    return data


def _whole(reference: Reference, facts: Facts, data: Data) -> Data:
    """Other numbers than 0 and 1 in one sequence, for inputs of a whole type, the lowest first.

    A file that does not take them has its own: they are places in something.
    """
    random, found = np.random.default_rng(5), Data()
    for port in facts.inputs:
        if port.dtype.kind not in "iu" or port.below or port.positive or port.time is None:
            continue
        limits, x = np.iinfo(port.dtype), data[port.name].copy()
        values = np.array([n for n in _WHOLE if limits.min <= n <= limits.max], port.dtype)
        x[0, -1], x[1:, -1] = values[0], random.choice(values, x[1:, -1].shape)
        start = facts.lead + _START
        with suppress(StepFailed):
            reference.last({name: each[:start] for name, each in (data | found | {port.name: x}).items()})
            found[port.name] = x
    return found


def _size(facts: Facts, found: Hints) -> tuple[int, int]:
    """How many steps and sequences; where rows are very wide, fewer, but no less steps than a constant can reach."""
    numbers = sum(math.prod(port.row) for port in (*facts.inputs, *facts.outputs))
    if numbers > _WIDE:
        return max(found.least, min(found.steps, _MOST // numbers)), 1
    return found.steps, 1 if facts.alone else 2


def _with(values: np.ndarray, row: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The row with every other number one of the values."""
    return np.where(random.random(row.shape) < 0.5, random.choice(values, row.shape), row)


def _near(thresholds: Sequence[float], port: Port) -> np.ndarray:
    """The thresholds that an input can meet, and what lies to both sides of them."""
    if port.positive or port.below or port.dtype.kind not in "fiu":
        return np.zeros(0, port.dtype)
    exact = np.array(thresholds)
    aside = 1 + np.abs(exact) / 9
    values = np.concatenate([exact, exact - aside, exact + aside])
    if port.dtype.kind != "f":
        limits, values = np.iinfo(port.dtype), np.round(values)
        values = values[(values >= limits.min) & (values <= min(limits.max, 2**31))]
    near: np.ndarray = values[np.isfinite(values)].astype(port.dtype)
    finite: np.ndarray = near[np.isfinite(near)]
    return finite


def _begun(reference: Reference, facts: Facts, data: Data, thresholds: Sequence[float]) -> Data:
    """Random states of the interface to begin from, thresholds among their numbers; none if the file takes none."""
    batch, random = size(data)[1], np.random.default_rng(4)
    begun = {c.given.name: c.given.sample(1, batch, random)[0] for c in facts.carried}
    for port in (carried.given for carried in facts.carried):
        values = _near(thresholds, port)
        if len(values):
            begun[port.name][-1] = _with(values, begun[port.name][-1], random)
    try:
        start = facts.lead + _START
        first = reference.last({name: x[:start] for name, x in data.items()}, begun) if begun else None
    except StepFailed:
        first = None
    finite = first and all(np.isfinite(v).all() for v in first.values())
    return begun if finite else {}


def moved(values: Data) -> Data:
    """The same rows or states, with every number that is not whole changed by a tiny part of itself."""
    random = np.random.default_rng(3)
    return {name: _moved(x, random) if x.dtype.kind == "f" else x for name, x in values.items()}


def _moved(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.where(x == np.round(x), x, x * (1 + _NOISE * random.standard_normal(x.shape))).astype(x.dtype)


def refusal(apart: Difference, mixing: str | None) -> ModelRefused:
    return ModelRefused(f"{mixing} ({said(apart)})" if mixing else said(apart))


def imprecise(apart: Difference, most: float) -> Imprecise:
    differs = f"{apart.what} differs by {apart.error:.2g} from the original file's at step {apart.step}"
    return Imprecise(explanation.last_digits(f"{differs}; at most {most:.0e} is accepted"))


def said(apart: Difference) -> str:
    if not apart.step:
        return f"{apart.what} differs by {apart.error:.2g} from the original file at the first step"
    return (
        f"{apart.what} agrees with the original file up to step {apart.step - 1} and differs by {apart.error:.2g} "
        f"at step {apart.step}"
    )
