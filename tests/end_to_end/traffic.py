"""Fifty sequences of a surviving client over real streams: single steps, chunks and a fleet, and all their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.streaming import QUIET, Streaming
from tests.surviving_client import SurvivingClient, Survivor

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

SINGLE, CHUNKS, FLEET = 20, 15, 15
COUNT = SINGLE + CHUNKS + FLEET


class Traffic:
    """`rows` [COUNT, T, features] go through the model, to whatever server is at `address` when a stream is lost.

    `heard` is called after each message with the number of answers that there are. A stream on which nothing comes for
    `patience` seconds is given up.
    """

    def __init__(
        self,
        rows: np.ndarray,
        address: Callable[[], str],
        model: str = "recall",
        heard: Callable[[int], None] = lambda _: None,
        patience: float = QUIET,
    ) -> None:
        self.client = SurvivingClient()
        self._rows, self._model, self._heard = rows, model, heard
        self._streaming = Streaming(self.client, address, done=self._done, act=self._act, patience=patience)

    @property
    def answers(self) -> list[list[bytes]]:
        return [one.answers for one in self.client.all]

    @property
    def count(self) -> int:
        return sum(len(one.answers) for one in self.client.all)

    @property
    def streams(self) -> int:
        """How many there were."""
        return self._streaming.streams

    async def run(self) -> None:
        """Until every step is answered."""
        self.client.open(SINGLE + CHUNKS, self._model)
        self.client.open(FLEET, self._model)
        await self._streaming.run()

    def _act(self) -> None:
        self._heard(self.count)
        self._give()

    def _done(self) -> bool:
        lost = [one for one in self.client.all if one.gone]
        assert not lost, lost
        return self.count == self._rows.shape[0] * self._rows.shape[1]

    def _give(self) -> None:
        """Whoever has its answers gets its next steps."""
        for at, one in enumerate(self.client.all[: SINGLE + CHUNKS]):
            size = 1 if at < SINGLE else 1 + at % 9
            if self._may(one):
                self.client.give(one, self._rows[at, one.end : one.end + size])
        fleet = self.client.all[SINGLE + CHUNKS :]
        if all(self._may(one) for one in fleet):
            step = fleet[0].end
            self.client.give_fleet(fleet, self._rows[SINGLE + CHUNKS :, step])

    def _may(self, one: Survivor) -> bool:
        return one.ready and one.answered == one.end < self._rows.shape[1]
