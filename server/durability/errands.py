"""What is done with the store in the background, for somebody who hears later what came of it, or why nothing did."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from server.errors import TidegateError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Errands:
    """Those that are under way."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()  # the event loop itself does not hold on to its tasks

    def run(self, call: Coroutine[Any, Any, T], then: "Callable[[T | TidegateError], None]") -> None:
        """Does something; `then` hears what came of it, and if it fails to take that up, of the failure as well."""
        task = asyncio.get_running_loop().create_task(_tried(call, then))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def _tried(call: Coroutine[Any, Any, T], then: "Callable[[T | TidegateError], None]") -> None:
    found: T | TidegateError
    failure = TidegateError("the server failed; its log has the details")
    try:
        found = await call
    except TidegateError as error:
        found = error
    except Exception:
        log.exception("something with the store failed")
        found = failure
    try:
        then(found)
    except Exception:
        log.exception("what came of something with the store could not be taken up")
        if found is not failure:
            then(failure)
