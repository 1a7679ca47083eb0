"""`python -m server`: reads the settings and runs the server. `python -m server check FILE` looks at a model file."""

import asyncio
import logging
import sys

from uvloop import new_event_loop

from server import check
from server.errors import StoreFailed
from server.lifecycle import Server
from server.settings import Settings, read

log = logging.getLogger("server")

_SWITCH = 2e-4  # seconds after which a thread that works yields to the event loop: the usual 5 ms are many steps


def main() -> int:
    """Runs until stopped; the process's exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["check"]:
        return check.main(arguments[1:])
    settings = read(arguments)
    sys.setswitchinterval(_SWITCH)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if not settings.models.is_dir():
        log.error("the model repository %s is not a folder; give another with --models", settings.models)
        return 1
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run(settings))
    except (OSError, StoreFailed) as error:
        log.error("%s", error)  # noqa: TRY400 # the sentence is enough: the port is taken, or not ours to open
        return 1
    return 0


async def _run(settings: Settings) -> None:
    await Server(settings).run()


if __name__ == "__main__":
    sys.exit(main())
