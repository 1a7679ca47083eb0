"""The command `tidegate`: carries out what its arguments ask for, and turns the outcome into an exit status.

0: done. 1: refused or failed, with one line on standard error. 2: wrong usage. 130: interrupted. 129 and 143: a
sequence that is kept was left in order at SIGHUP or SIGTERM.

Ctrl-C is quiet at any moment. So this imports next to nothing: the rest is imported once the signal is taken care of.
"""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tidegate.cli.interrupt import INTERRUPTED, Stopped, interrupts_raise, leave_at_an_interrupt


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    leave_at_an_interrupt()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC logs is said again in a sentence
    run = import_module("tidegate.cli.running").run
    _open_what_is_closed()
    try:
        with interrupts_raise():
            status = run(arguments)
            sys.stdout.flush()
    except Stopped as stopped:
        status = stopped.status
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    gc.freeze()  # the end looks for garbage in what was imported otherwise, for as long as a short call takes
    sys.exit(status)


def _open_what_is_closed() -> None:
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - until the end
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


if __name__ == "__main__":
    main()
