"""`python -m server`: reads the settings and runs the server, or a command that looks at something and ends.

What is asked for is imported, and nothing else: a command loads no server.
"""

import gc
import sys
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from server import options
from server.operations.process import leave, open_what_is_closed, run
from server.settings import Settings

COMMANDS = {
    "check": "server.operations.check",
    "doctor": "server.operations.doctor.command",
    "settings": "server.options",
    "store": "server.operations.store",
    "token": "server.operations.token",
}


def main() -> int:
    """Runs until stopped; the process's exit status."""
    open_what_is_closed()
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        status: int = import_module(COMMANDS[arguments[0]]).main(arguments[1:])
        return status
    if arguments and not arguments[0].startswith("-"):
        print(
            f"python -m server: there is no command {arguments[0]!r}; expected {', '.join(COMMANDS)}", file=sys.stderr
        )
        return 2
    settings = options.read(arguments)
    return leave(run(settings, _serving(settings, arguments)))


def _serving(settings: Settings, arguments: list[str]) -> Callable[[], Coroutine[Any, Any, None]]:
    several = settings.workers > 1
    gc.disable()  # what is imported stays: to look for garbage in it takes a tenth of the start
    module = import_module("server.operations.workers" if several else "server.operations.lifecycle")
    gc.enable()

    async def serve() -> None:  # what grpcio makes belongs to the event loop that runs meanwhile
        await (module.Workers(settings, arguments) if several else module.Server(settings)).run()

    return serve


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:  # before a server takes signals itself, or in a command
        status = 130
    gc.freeze()  # the end need not look for garbage in what was imported
    sys.exit(status)
