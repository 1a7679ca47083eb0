"""What comes over the wire is what torch computes: outputs, states and every gate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import tidegate
from tests.equations import inside
from tests.zoo import COMPARED, Pair

if TYPE_CHECKING:
    from tests.running_server import RunningServer
    from tests.zoo import Zoo

STEPS = 25


@pytest.mark.parametrize("name", COMPARED)
def test_outputs_states_and_gates_are_those_of_the_equations(server: RunningServer, zoo: Zoo, name: str) -> None:
    network = zoo.networks[name]
    x = network.rows(STEPS)
    expected = inside(network, x)
    with tidegate.connect(server.address) as client, client.sequence(name) as sequence:
        answers = [sequence.step(row) for row in x.numpy()[:10]]
        chunk = sequence.chunk(x.numpy()[10:])
    np.testing.assert_allclose(
        np.concatenate([[a.output for a in answers], chunk.output]), network.of_prefixes(x), rtol=0, atol=1e-5
    )
    assert list(chunk.layer) == list(range(network.spec.layers))
    for layer, parts in enumerate(expected):
        assert set(chunk.layer[layer].parts) == set(parts)
        for part, values in parts.items():
            got = np.concatenate([[a.layer[layer][part] for a in answers], chunk.layer[layer][part]])
            np.testing.assert_allclose(got, values, rtol=0, atol=1e-5, err_msg=f"{part} of layer {layer}")


@pytest.mark.parametrize("name", COMPARED)
def test_no_two_gates_of_a_compared_model_are_alike(zoo: Zoo, name: str) -> None:
    network = zoo.networks[name]
    for parts in inside(network, network.rows(STEPS)):
        values = list(parts.values())
        for i, one in enumerate(values):
            assert all(np.abs(one - other).max() > 1e-2 for other in values[i + 1 :])


def test_two_inputs_two_kinds_of_cell_two_outputs_and_a_learned_start(server: RunningServer) -> None:
    network = Pair()
    x, token = torch.randn(STEPS, 3), torch.randint(0, 10, (STEPS,))
    with torch.no_grad():
        y, share = network(x[None], token[None])
    with tidegate.connect(server.address) as client, client.sequence("pair") as sequence:
        rows = [{"x": a, "token": b} for a, b in zip(x.numpy(), token.numpy(), strict=True)]
        answers = [sequence.step(row) for row in rows]
        assert [sequence_layer.parts for sequence_layer in answers[0].layer.values()] == [
            ("hidden", "cell", "input", "forget", "candidate", "output"),
            ("hidden", "update", "reset", "candidate"),
        ]
    np.testing.assert_allclose([a.outputs["y"] for a in answers], y[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose([a.outputs["share"] for a in answers], share[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "wide", "tokens", "lstm-3-batch-last"])
def test_a_prediction_has_the_bits_of_single_steps(server: RunningServer, zoo: Zoo, name: str) -> None:
    x = zoo.networks[name].rows(STEPS, seed=5).numpy()
    with tidegate.connect(server.address) as client:
        whole = client.predict(name, x)
        with client.sequence(name) as sequence:
            for i, row in enumerate(x):
                answer = sequence.step(row)
                assert answer.output.tobytes() == whole[i].output.tobytes()
                assert answer.trace is not None
                assert whole.trace is not None
                assert answer.trace.tobytes() == whole.trace[i].tobytes()
    assert (whole.model, whole.version) == (name, 1)


async def test_a_fleet_s_numbers_are_those_of_torch(server: RunningServer, zoo: Zoo) -> None:
    network = zoo.networks["gru"]
    x = torch.stack([network.rows(8, seed) for seed in range(200)], 1)
    with torch.no_grad():
        expected = network(x.transpose(0, 1)).transpose(0, 1)
    async with tidegate.AsyncClient(server.address) as client, client.fleet("gru", 200) as fleet:
        blocks = await asyncio.gather(*(fleet.step(rows) for rows in x.numpy()))
    np.testing.assert_allclose([block.output for block in blocks], expected, rtol=0, atol=1e-5)
