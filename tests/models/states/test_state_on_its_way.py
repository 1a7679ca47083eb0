"""States of files of one step that something is computed from before they start a cell or are returned."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.loading import load
from stepgraph.model import LoadedModel
from stepgraph.report import remarks

CASES = Path(__file__).parents[1] / "cases"
BATCH, STEPS, OBS, HIDDEN, SLOTS = 2, 200, 4, 8, 5
FREE = {"obs": {0: "batch"}, "done": {0: "batch"}, "h": {1: "batch"}, "c": {1: "batch"}, "cache": {0: "batch"}}

Export = Callable[..., Path]
Arrays = dict[str, np.ndarray]


class Net(nn.Module):
    def __init__(self, cell: str = "GRU", layers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cell = getattr(nn, cell)(OBS, HIDDEN, layers)
        self.head = nn.Linear(HIDDEN, 2)


class Masked(Net):
    """As recurrent PPO has it: both states begin anew where an episode does."""

    def forward(self, obs: Tensor, h: Tensor, c: Tensor, done: Tensor) -> tuple[Tensor, ...]:
        keep = (1.0 - done).view(1, -1, 1)
        y, (h, c) = self.cell(obs[None], (h * keep, c * keep))
        return self.head(y[0]), h, c


class MaskedAfter(Net):
    def forward(self, obs: Tensor, h: Tensor, done: Tensor) -> tuple[Tensor, ...]:
        y, h = self.cell(obs[None], h)
        return self.head(y[0]), torch.where(done.view(1, -1, 1) > 0.5, torch.zeros_like(h), h)


class Normed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, obs: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        y, h = self.cell(obs[None], self.norm(h))
        return self.head(y[0]), h


class Cached(Net):
    """A state for each slot of a cache [B, SLOTS, H]; a step says which one it goes on from."""

    def forward(self, obs: Tensor, slot: Tensor, cache: Tensor) -> tuple[Tensor, ...]:
        rows = torch.arange(cache.shape[0]), slot.view(-1)
        y, h = self.cell(obs[None], cache[rows][None].contiguous())
        return self.head(y[0]), cache.index_put(rows, h[0])


class Mixed(Net):
    """A product on the way: what comes out of it may be anything, so that the pair must be declared."""

    def __init__(self) -> None:
        super().__init__()
        self.bridge = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, obs: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        y, h = self.cell(obs[None], self.bridge(h))
        return self.head(y[0]), h


def inputs(loaded: LoadedModel) -> Arrays:
    """[T, B, ...row] by input: episodes end now and then."""
    random = np.random.default_rng(0)
    draws: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "obs": random.standard_normal,
        "done": lambda shape: random.random(shape) < 0.1,
        "slot": lambda shape: random.integers(0, SLOTS, shape),
    }
    ports = loaded.graph.inputs
    return {port.name: draws[port.name]((STEPS, BATCH, *port.row)).astype(port.dtype) for port in ports}


def stepwise(path: Path, x: Arrays, states: Mapping[str, str]) -> list[np.ndarray]:
    """What onnxruntime answers to the untouched file, its states handed back after each step."""
    session = onnxruntime.InferenceSession(path)
    sizes = {i.name: [d if isinstance(d, int) else BATCH for d in i.shape] for i in session.get_inputs()}
    held = {name: np.zeros(sizes[name], np.float32) for name in states}
    names, answers = [output.name for output in session.get_outputs()], []
    for step in range(STEPS):
        said = dict(zip(names, session.run(names, {n: rows[step] for n, rows in x.items()} | held), strict=True))
        held = {name: said[output] for name, output in states.items()}
        answers.append(said["action"])
    return answers


def check(path: Path, states: Mapping[str, str]) -> LoadedModel:
    loaded = load(path, 4, 1.0)
    x, state = inputs(loaded), np.tile(loaded.graph.initial, (BATCH, 1))
    for step, wanted in enumerate(stepwise(path, x, states)):
        result = loaded.engine.run({name: rows[step : step + 1] for name, rows in x.items()}, state, trace=True)
        state = result.state
        np.testing.assert_allclose(result.outputs["action"][0], wanted, atol=1e-4)
    return loaded


ZEROS = {n: torch.zeros(2, BATCH, HIDDEN) for n in "hc"} | {"obs": torch.zeros(BATCH, OBS), "done": torch.zeros(BATCH)}
H = ZEROS["h"][:1]
OF_ONE = [
    (MaskedAfter(), (ZEROS["obs"], H, ZEROS["done"]), "obs h done", {"h": "hn"}),
    (Normed(), (ZEROS["obs"], H), "obs h", {"h": "hn"}),
    (Masked("LSTM", 2), (ZEROS["obs"], ZEROS["h"], ZEROS["c"], ZEROS["done"]), "obs h c done", {"h": "hn", "c": "cn"}),
    (
        Cached(),
        (ZEROS["obs"], torch.zeros(BATCH, dtype=torch.long), torch.zeros(BATCH, SLOTS, HIDDEN)),
        "obs slot cache",
        {"cache": "cachen"},
    ),
]


@pytest.mark.parametrize("toml", [True, False])
def test_a_mask_on_the_way_of_a_state_into_its_cell_is_part_of_the_step(toml: bool, tmp_path: Path) -> None:
    path = Path(shutil.copy(CASES / "reset_by_where.onnx", tmp_path / "model.onnx"))
    if toml:
        path.with_name("model.toml").write_text('[state]\nhidden = "hidden_out"\n')
    check(path, {"hidden": "hidden_out"})


@pytest.mark.parametrize(("net", "args", "names", "states"), OF_ONE, ids=lambda value: type(value).__name__)
def test_a_state_is_found_through_what_works_on_each_of_its_values(
    net: nn.Module, args: tuple[Tensor, ...], names: str, states: dict[str, str], export: Export
) -> None:
    axes = FREE | {"slot": {0: "batch"}, "action": {0: "batch"}}
    axes |= {output: axes[name] for name, output in states.items()}
    path = export(net, args, names, " ".join(("action", *states.values())), axes)
    loaded = check(path, states)
    assert {c.given.name: c.returned.name for c in loaded.facts.carried} == states


def test_a_state_behind_a_product_is_taken_from_model_toml_and_missed_aloud_without_it(export: Export) -> None:
    axes = FREE | {"action": {0: "batch"}, "hn": {1: "batch"}}
    path = export(Mixed(), (ZEROS["obs"], H), "obs h", "action hn", axes)
    (said,) = remarks.remarks(load(path, 4, 1.0))
    assert said.startswith("nothing is carried from one step to the next")
    assert said.endswith('under [state]: h = "hn"')
    path.with_name("model.toml").write_text('[state]\nh = "hn"\n')
    check(path, {"h": "hn"})


def test_a_state_that_does_more_than_start_the_cell_is_seen_from_random_states(export: Export) -> None:
    """From zeros nothing shows it: where a sequence begins from more than a cell can hold, all answers are moved."""

    class Moved(Net):
        def forward(self, obs: Tensor, h: Tensor) -> tuple[Tensor, ...]:
            y, after = self.cell(obs, h)
            return self.head(y) + (h.abs().amax((0, 2)) > 1.01).float()[None, :, None], after

    axes = {name: {0: "time", 1: "batch"} for name in ("obs", "action")} | {"h": {1: "batch"}, "hn": {1: "batch"}}
    facts = load(export(Moved(), (torch.zeros(3, BATCH, OBS), H), "obs h", "action hn", axes), 4, 1.0).facts
    assert not facts.carried
    assert [port.name for port in facts.starts] == ["h"]
