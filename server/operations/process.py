"""A server's process: its log, its event loop, its exit status. Knows nothing of what runs in the loop."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from threading import Timer
from typing import Any, NoReturn

from uvloop import new_event_loop

from server.errors import StoreFailed
from server.operations import exposure
from server.operations.connections import raise_descriptors
from server.operations.log import begin
from server.settings import Settings

log = logging.getLogger("server")

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
