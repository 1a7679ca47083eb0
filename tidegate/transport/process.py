"""Detects use after os.fork(), which takes neither threads nor connections along."""

import os


class OwnProcess:
    """The process in which this was made."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def here(self) -> bool:
        return os.getpid() == self._process

    def check(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("this client was made in another process: make one after the fork")
