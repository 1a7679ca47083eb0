"""`python -m demo`: train, export, serve, stream, draw. Ends by itself and leaves no process behind.

Imports next to nothing before it can be stopped without a traceback.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

_FAILED, _STOPPED = 1, 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, 1 if something failed, 130 if it was stopped."""
    for sign in _SIGNALS:
        signal.signal(sign, _leave)
    run = import_module("demo.demonstration").run
    for sign in _SIGNALS:
        signal.signal(sign, _interrupt)
    try:
        failure = run(arguments)
    except KeyboardInterrupt:
        return _complain("stopped", _STOPPED)
    return _complain(failure, _FAILED) if failure else 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _leave(*_: object) -> NoReturn:
    """Where nothing runs yet that would have to be stopped."""
    os._exit(_complain("stopped", _STOPPED))


def _complain(message: str, status: int) -> int:
    print(f"demo: {message}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
