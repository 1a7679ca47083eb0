"""Memory that is free goes back to the system: not at once, and not again and again."""

from __future__ import annotations

import subprocess
import sys

from server.operations.memory import Allocator, Memory

MIB = 2**20
FLOOD = """
from server.operations.memory import Memory, resident
memory, before = Memory(), resident()
flood = [bytes(2_000) for _ in range(100_000)]
kept = flood[::1_000]
del flood
print(resident() - before)
for _ in range(2):
    memory.look()
print(resident() - before)
"""


class Fake(Allocator):
    """Says what the test says, and counts."""

    def __init__(self) -> None:
        self.unused = self.resident = 0
        self.given = 0

    def free(self) -> int:
        return self.unused

    def give_back(self) -> None:
        self.given += 1
        self.resident -= self.unused


def looked(fake: Fake, memory: Memory, free: int, resident: int) -> int:
    fake.unused, fake.resident = free * MIB, resident * MIB
    memory.look()
    return fake.given


def test_much_that_is_free_at_two_looks_is_given_back_once_and_again_after_the_next_flood() -> None:
    fake = Fake()
    memory = Memory(fake, lambda: fake.resident)
    assert looked(fake, memory, 500, 700) == 0
    assert looked(fake, memory, 500, 700) == 1
    assert [looked(fake, memory, 500, 200) for _ in range(3)] == [1] * 3  # free, and not resident any more
    assert [looked(fake, memory, 500, 600) for _ in range(2)] == [1, 2]


def test_little_that_is_free_or_is_needed_again_at_once_stays() -> None:
    fake = Fake()
    memory = Memory(fake, lambda: fake.resident)
    assert [looked(fake, memory, free, 900) for free in (10, 60, 500, 10, 500, 20)] == [0] * 6


def test_what_a_flood_took_goes_back_to_the_system_although_a_little_of_it_is_still_needed() -> None:
    ran = subprocess.run([sys.executable, "-c", FLOOD], capture_output=True, text=True, check=True)
    after_the_flood, given_back = map(int, ran.stdout.split())
    assert after_the_flood > 150 * MIB
    assert given_back < 20 * MIB
