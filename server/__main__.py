"""`python -m server`: reads the settings and runs the server. `python -m server check FILE` looks at a model file."""

import sys

from server.operations import check
from server.operations.lifecycle import Server
from server.operations.process import run
from server.operations.workers import Workers
from server.settings import Settings, read


def main() -> int:
    """Runs until stopped; the process's exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["check"]:
        return check.main(arguments[1:])
    settings = read(arguments)
    return run(settings, lambda: _serve(settings, arguments))


async def _serve(settings: Settings, arguments: list[str]) -> None:
    if settings.workers > 1:
        await Workers(settings, arguments).run()
    else:
        await Server(settings).run()


if __name__ == "__main__":
    sys.exit(main())
