"""Attacks a server, in a process of its own, which gives way to the server's: else it would take the processor from it.

It takes one question a line, {"attack": name, "port": p}, and gives one answer a line, {"wrong": what was wrong with
the attack, if anything}; both are JSON.
"""

import asyncio
import os

import grpc

from bench.attacks.every import ATTACKS
from bench.processes.worker import Json, work

PATIENCE = 30.0  # seconds for an attack
SETTLE = 0.5  # seconds after an attack that are still its own
NICE = 10  # of ten parts of the processor that a server wants too, it gets one
NOBODY = "nobody"  # is no attack: what the machine does by itself shows
LENGTH = 3.0  # seconds of that


def attack(question: Json) -> Json:
    return {"wrong": asyncio.run(_carried_out(question["attack"], question["port"]))}


async def _carried_out(name: str, port: int) -> str:
    try:
        await asyncio.wait_for(asyncio.sleep(LENGTH) if name == NOBODY else ATTACKS[name](port), PATIENCE)
    except (TimeoutError, RuntimeError, asyncio.InvalidStateError, grpc.aio.AioRpcError) as error:
        return str(error) or f"not over after {PATIENCE:.0f} s"
    await asyncio.sleep(SETTLE)
    return ""


if __name__ == "__main__":
    os.nice(NICE)
    work(attack)
