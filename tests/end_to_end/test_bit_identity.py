"""What a sequence gets does not depend on who else is served, nor on how its steps were cut into messages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tidegate
from tests.raw_stream import RawStream, bits, open_, rows_of, steps

if TYPE_CHECKING:
    from tests.running_server import RunningServer
    from tests.zoo import Zoo

MODELS = ("lstm", "gru", "rnn", "wide", "tokens", "lstm-3-batch-last")
STREAMS = 5


@dataclass(frozen=True, eq=False)
class Script:
    """One sequence: its model, its inputs, whether it is traced, and how its steps are cut into messages."""

    model: str
    rows: np.ndarray
    trace: bool
    cuts: tuple[int, ...]


def scripts(zoo: Zoo, count: int, seed: int) -> list[Script]:
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        length = int(random.integers(1, 60))
        rows = zoo.networks[MODELS[i % len(MODELS)]].rows(length, seed=1000 * seed + i).numpy()
        cuts: list[int] = []
        while sum(cuts) < length:  # half of the messages hold one step, the others up to 25
            size = 1 if random.random() < 0.5 else int(random.integers(2, 26))
            cuts.append(min(size, length - sum(cuts)))
        made.append(Script(MODELS[i % len(MODELS)], rows, bool(random.random() < 0.5), tuple(cuts)))
    return made


def of(answer: tidegate.Answer) -> bytes:
    return answer.output.tobytes() + b"|" + (b"" if answer.trace is None else answer.trace.tobytes())


async def served(client: tidegate.AsyncClient, script: Script) -> list[bytes]:
    """With its messages one after the other, or all at once in a window."""
    heard: list[bytes] = []
    async with client.sequence(script.model, trace=script.trace) as sequence:
        start = 0
        for size in script.cuts:
            rows = script.rows[start : start + size]
            if size == 1:
                heard.append(of(await sequence.step(rows[0])))
            elif size % 2:
                heard.extend([of(answer) async for answer in sequence.stream(rows, window=7)])
            else:
                heard.extend(of(answer) for answer in await sequence.chunk(rows))
            start += size
    return heard


async def served_as_fleet(client: tidegate.AsyncClient, members: list[Script]) -> list[list[bytes]]:
    """Step by step together; those that have come to their end stay behind."""
    heard: list[list[bytes]] = [[] for _ in members]
    random = np.random.default_rng(len(members))
    async with client.fleet(members[0].model, len(members), trace=members[0].trace) as fleet:
        while waiting := [i for i, script in enumerate(members) if len(heard[i]) < len(script.rows)]:
            taking = random.permutation(waiting)[: int(random.integers(1, len(waiting) + 1))].tolist()
            block = await fleet.step(np.stack([members[i].rows[len(heard[i])] for i in taking]), members=taking)
            for row, i in enumerate(taking):
                trace = b"" if block.trace is None else block.trace[row].tobytes()
                heard[i].append(block.output[row].tobytes() + b"|" + trace)
    return heard


async def alone(client: tidegate.AsyncClient, script: Script) -> list[bytes]:
    async with client.sequence(script.model, trace=script.trace) as sequence:
        return [of(await sequence.step(row)) for row in script.rows]


async def test_200_sequences_at_once_get_the_bits_that_each_gets_alone(server: RunningServer, zoo: Zoo) -> None:
    singles = scripts(zoo, 150, seed=1)
    fleets = [
        [Script(s.model, s.rows, trace, s.cuts) for s in scripts(zoo, 60, seed=2 + f) if s.model == model]
        for f, (model, trace) in enumerate((m, t) for m in ("lstm", "gru", "tokens") for t in (True, False))
    ]
    assert sum(map(len, fleets)) + len(singles) >= 200
    clients = [tidegate.AsyncClient(server.address) for _ in range(STREAMS)]
    together = await asyncio.gather(
        *(served(clients[i % STREAMS], script) for i, script in enumerate(singles)),
        *(served_as_fleet(clients[i % STREAMS], members) for i, members in enumerate(fleets)),
    )
    heard = [*together[: len(singles)], *(each for members in together[len(singles) :] for each in members)]
    everyone = [*singles, *(script for members in fleets for script in members)]
    for i, (script, answers) in enumerate(zip(everyone, heard, strict=True)):
        assert answers == await alone(clients[0], script), f"sequence {i}, {script.model}, cut into {script.cuts}"
    await asyncio.gather(*(client.close() for client in clients))


async def test_steps_sent_without_waiting_are_answered_in_order(server: RunningServer, zoo: Zoo) -> None:
    rows = zoo.networks["wide"].rows(300, seed=3).numpy()
    random = np.random.default_rng(0)
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "wide"))
        expected = await stream.run(0, 0, rows)
        await stream.ask(open_(1, "wide"))
        start, heard, sent = 0, [], []
        while start < len(rows):
            size = min(int(random.integers(1, 40)), len(rows) - start)
            sent.append(start)
            await stream.say(steps(1, start, rows[start : start + size]))
            start += size
        answers = [await stream.hear() for _ in sent]
        assert [answer.first_step for answer in answers] == sent
        for answer in answers:
            heard.extend(rows_of(answer))
    assert heard == expected


@pytest.mark.parametrize("length", [2, 7, 21, 25, 64, 200])
@pytest.mark.parametrize("model", ["lstm", "wide"])
async def test_a_chunk_of_any_length_has_the_bits_of_single_steps(
    server: RunningServer, zoo: Zoo, model: str, length: int
) -> None:
    rows = zoo.networks[model].rows(length, seed=9).numpy()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, model, count=2))
        expected = await stream.run(0, 0, rows)
        await stream.say(steps(1, 0, rows))
        assert await stream.rows(length) == expected


async def test_no_part_of_a_chunk_overtakes_another(server: RunningServer, zoo: Zoo) -> None:
    """Its last batch may be short enough to be computed on the spot while an earlier one is with the thread."""
    rows = zoo.networks["tiny"].rows(240, seed=10).numpy()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "tiny", count=241))
        expected = await stream.run(0, 0, rows)
        for length in range(1, len(rows) + 1):
            await stream.say(steps(length, 0, rows[:length]))
            assert await stream.rows(length) == expected[:length], length


async def test_the_size_of_the_batch_does_not_matter(server: RunningServer, zoo: Zoo) -> None:
    rows = zoo.networks["gru"].rows(1, seed=4).numpy()
    async with tidegate.AsyncClient(server.address) as client, client.sequence("gru") as one:
        expected = of(await one.step(rows[0]))
        for size in (2, 3, 17, 63, 64, 65, 300):
            async with client.fleet("gru", size) as fleet:
                block = await fleet.step(np.repeat(rows, size, 0))
                assert block.trace is not None
                got = {o.tobytes() + b"|" + t.tobytes() for o, t in zip(block.output, block.trace, strict=True)}
                assert got == {expected}, size


async def test_a_single_row_may_come_with_or_without_the_axis_of_steps(server: RunningServer, zoo: Zoo) -> None:
    rows = zoo.networks["lstm"].rows(2).numpy()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, count=2))
        assert bits(await stream.ask(steps(0, 0, rows[0]))) == bits(await stream.ask(steps(1, 0, rows[:1], "x")))
