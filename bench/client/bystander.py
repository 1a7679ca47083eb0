"""A client that wants little, a process of its own: one step of one sequence after the other, and how long each took.

It takes one question a line and gives one answer a line, both JSON:

  {"ask": "begin", "port": p, "model": name}    a sequence is opened, and steps are taken from now on
  {"ask": "end"}                                {"took": [milliseconds of each step]}, one that waits yet is the last
"""

import asyncio
import threading
import time

import uvloop

from bench.client.many import One
from bench.client.plain import StreamEndedError
from bench.processes.worker import Json, work

PATIENCE = 1.0  # seconds for the last answer
PAUSE = 0.001  # seconds between an answer and the next step
FIRST = 20  # steps that do not count: what is slow once


class Bystander:
    """Answers the questions; at most one sequence is open at a time."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._took: list[float] = []
        self._sent = 0.0

    def __call__(self, question: Json) -> Json:
        if question["ask"] == "begin":
            self._begin(question["port"], question["model"])
            return {}
        self._over.set()
        self._thread.join(PATIENCE)
        waits = [(time.perf_counter() - self._sent) * 1e3] if self._thread.is_alive() else []
        return {"took": self._took + waits}

    def _begin(self, port: int, model: str) -> None:
        self._over.clear()
        self._took = []
        opened = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port, model, opened), daemon=True)
        self._thread.start()
        if not opened.wait(30):
            raise TimeoutError("no sequence was opened within 30 s")
        if self._refused:
            raise RuntimeError(self._refused)

    def _run(self, port: int, model: str, opened: threading.Event) -> None:
        self._refused = ""
        try:
            uvloop.run(self._steps(port, model, opened))
        except (StreamEndedError, OSError, RuntimeError) as error:
            if opened.is_set():
                raise
            self._refused = str(error)
            opened.set()

    async def _steps(self, port: int, model: str, opened: threading.Event) -> None:
        one = await One.open(port, model)
        for _ in range(FIRST):
            await one.step()
        opened.set()
        while not self._over.is_set():
            await asyncio.sleep(PAUSE)
            self._sent = time.perf_counter()
            await one.step()
            self._took.append((time.perf_counter() - self._sent) * 1e3)
        one.close()


if __name__ == "__main__":
    work(Bystander())
