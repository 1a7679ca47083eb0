"""A server's process: its log, its event loop, its exit status. Knows nothing of what runs in the loop."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any, NoReturn

from uvloop import new_event_loop

from server.errors import StoreFailed
from server.operations import exposure
from server.operations.connections import raise_descriptors
from server.operations.log import begin
from server.settings import Settings

log = logging.getLogger("server")

_READ_ANEW = "SIGHUP: models, certificates and tokens are read anew whenever they change; settings need a restart"
_LAST = 2.0  # seconds for threads that are still at work
_SWITCH = 2e-4  # seconds after which a thread that works yields to the event loop: the usual 5 ms are many steps


def run(settings: Settings, life: Callable[[], Coroutine[Any, Any, None]], name: str = "") -> int:
    """Runs a server until it ends, or logs why it could not start. Returns the exit status. `name` is for the log."""
    sys.setswitchinterval(_SWITCH)
    raise_descriptors()
    begin(settings, name)
    if not settings.models.is_dir():
        log.error("the model repository %s is not a folder; give another with --models", settings.models)
        return 1
    try:
        exposure.check(settings)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_ended_in_time(life()))
    except (OSError, StoreFailed) as error:
        log.error("%s", error)  # noqa: TRY400 # the sentence is enough: the port is taken, or may not be opened
        return 1
    return 0


def obey(stop: Callable[[], None]) -> None:
    """Has SIGTERM and SIGINT, and in a terminal that is closed SIGHUP, call `stop`; elsewhere SIGHUP is logged."""
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        loop.add_signal_handler(signal.SIGHUP, stop if os.isatty(0) else partial(log.info, _READ_ANEW))


def open_what_is_closed() -> None:
    """Opens the standard streams that are closed: else a file or a socket gets their number, and what is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 # until the end


def leave(status: int) -> NoReturn:
    """Ends the process without taking apart what was imported, which takes a quarter of the time of a start."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


async def _ended_in_time(life: Coroutine[Any, Any, None]) -> None:
    """Ends the process soon after, also when a thread waits for a file system or a socket that hangs."""
    status = 1
    try:
        await life
        status = 0
    finally:
        end = Timer(_LAST, os._exit, (status,))
        end.daemon = True
        end.start()
