"""`python -m server`: reads the settings and runs the server, or a command that looks at something and ends."""

import sys

from server import options
from server.operations import check, store, token
from server.operations.doctor import command as doctor
from server.operations.lifecycle import Server
from server.operations.process import run
from server.operations.workers import Workers
from server.settings import Settings

COMMANDS = {
    "check": check.main,
    "doctor": doctor.main,
    "settings": options.main,
    "store": store.main,
    "token": token.main,
}


def main() -> int:
    """Runs until stopped; the process's exit status."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        print(
            f"python -m server: there is no command {arguments[0]!r}; expected {', '.join(COMMANDS)}", file=sys.stderr
        )
        return 2
    settings = options.read(arguments)
    return run(settings, lambda: _serve(settings, arguments))


async def _serve(settings: Settings, arguments: list[str]) -> None:
    if settings.workers > 1:
        await Workers(settings, arguments).run()
    else:
        await Server(settings).run()


if __name__ == "__main__":
    sys.exit(main())
