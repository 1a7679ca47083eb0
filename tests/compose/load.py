"""Clients of ours that step on and on, each its own sequence, and remember all that they were answered."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING

import numpy as np

import tidegate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "recall"
PACE = 0.01  # seconds from step to step: what is tested is not speed
PATIENCE = 90.0  # seconds
MOST = 50_000  # steps


class Load:
    """`count` clients of an address, each in a thread of its own; none of them knows that anything happens."""

    def __init__(self, address: str, count: int, connect: Callable[..., tidegate.Client]) -> None:
        self.address = address
        self.connect = partial(connect, address, timeout=PATIENCE)
        self.rows = [rows(seed, MOST) for seed in range(count)]
        self.answers: list[list[bytes]] = [[] for _ in range(count)]
        self.errors: list[BaseException] = []
        self._ended = Event()
        self._news = Condition()
        self._threads = [Thread(target=self._watch, args=(i,), daemon=True) for i in range(count)]

    def start(self) -> None:
        """Opens all sequences."""
        for thread in self._threads:
            thread.start()

    def advance(self, steps: int = 50) -> None:
        """Waits until every client has so many more answers than now."""
        goals = [len(answers) + steps for answers in self.answers]
        with self._news:
            done = self._news.wait_for(lambda: self.errors or self._reached(goals), PATIENCE)
        assert not self.errors, self.errors
        assert done, f"at {[len(answers) for answers in self.answers]}, expected {goals}"

    def stop(self) -> None:
        """Lets every client finish its step and close its sequence."""
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.errors, self.errors

    def check(self) -> None:
        """Every client has what an undisturbed one would have: every answer once, in order, to the last bit."""
        with self.connect() as client:
            for sent, heard in zip(self.rows, self.answers, strict=True):
                with client.sequence(MODEL) as sequence:
                    undisturbed = sequence.chunk(sent[: len(heard)])
                assert heard == [bits(answer) for answer in undisturbed]

    def _reached(self, goals: list[int]) -> bool:
        return all(len(answers) >= goal for answers, goal in zip(self.answers, goals, strict=True))

    def _watch(self, number: int) -> None:
        try:
            with self.connect() as client, client.sequence(MODEL) as sequence:
                for step, row in enumerate(self.rows[number]):
                    answer = sequence.step(row)
                    assert answer.step == step
                    self._enter(number, bits(answer))
                    if self._ended.wait(PACE):
                        return
        except BaseException as error:  # noqa: BLE001 - the test's own thread tells of it
            with self._news:
                self.errors.append(error)
                self._news.notify_all()

    def _enter(self, number: int, answer: bytes) -> None:
        with self._news:
            self.answers[number].append(answer)
            self._news.notify_all()


@contextmanager
def load(address: str, count: int = 12, connect: Callable[..., tidegate.Client] = tidegate.connect) -> Iterator[Load]:
    """Runs for as long as the context lasts; on the way out its answers are checked."""
    running = Load(address, count, connect)
    running.start()
    try:
        running.advance()
        yield running
    finally:
        running._ended.set()
    running.stop()
    running.check()


def rows(seed: int, count: int) -> np.ndarray:
    """What `recall` takes: a value, and whether to write or to read it."""
    random = np.random.default_rng(seed)
    values = random.uniform(-1, 1, (count, 3)).astype(np.float32)
    values[:, 1:] = values[:, 1:] > 0.5
    return values


def bits(answer: tidegate.Answer) -> bytes:
    """What an answer says, gates and all."""
    return bytes(answer.output.tobytes() + answer.trace.tobytes())
