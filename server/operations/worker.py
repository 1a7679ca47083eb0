"""`python -m server.operations.worker NUMBER DESCRIPTOR ...`: one of several servers that share a port.

The descriptor is a socket to the process that started it. A line is written once this server serves; when the socket
is closed, this server stops.
"""

import asyncio
import sys
from contextlib import suppress
from socket import socket
from typing import NoReturn

from server.operations.lifecycle import Server
from server.operations.process import leave, run
from server.options import read
from server.settings import Settings


def main() -> NoReturn:
    number, descriptor, *arguments = sys.argv[1:]
    settings = read(arguments)
    with socket(fileno=int(descriptor)) as parent:
        leave(run(settings, lambda: _serve(settings, parent), f"worker {number}"))


async def _serve(settings: Settings, parent: socket) -> None:
    loop, server = asyncio.get_running_loop(), Server(settings, shares_port=True)

    def tell() -> None:
        with suppress(OSError):  # it is gone: `orphaned` is called
            parent.send(b"\n")

    def orphaned() -> None:
        loop.remove_reader(parent)
        server.ask_to_stop()

    loop.add_reader(parent, orphaned)
    await server.run(tell)


if __name__ == "__main__":
    main()
