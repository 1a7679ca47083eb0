"""A process that answers questions: one line of JSON in, one line of JSON out, until the input ends."""

import json
import sys
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def work(answer: Callable[[Json], Json]) -> None:
    """Answer every line of standard input; what goes wrong is an answer too."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the process that asked must hear of everything
            reply = {"error": sentence(error)}
        print(json.dumps(reply), flush=True)


def sentence(error: BaseException) -> str:
    """Say what went wrong; of several things at once, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
