"""Every attack, one after the other, for ever: `python -m bench.attacks PORT [PAUSE]`; a line for each that is over."""

import asyncio
import sys

import grpc

from bench.attacks.every import ATTACKS

PATIENCE = 60.0  # seconds for an attack
PAUSE = 1.0  # seconds between two, unless others are asked for


async def for_ever(port: int, pause: float) -> None:
    """Attacks the server at a port of this machine."""
    while True:
        for name, attack in ATTACKS.items():
            try:
                await asyncio.wait_for(attack(port), PATIENCE)
                print(f"{name}: over", flush=True)
            except (TimeoutError, RuntimeError, grpc.aio.AioRpcError) as error:
                print(f"{name}: {str(error) or 'not over in time'}", flush=True)
            await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(for_ever(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else PAUSE))
