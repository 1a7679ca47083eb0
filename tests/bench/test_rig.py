import os
import signal
from pathlib import Path

import pytest

from bench.plan import Comparison, Local, Wire
from bench.processes.cache import Cache
from bench.processes.child import Child, RigError
from bench.processes.rig import Pace, Rig, compare
from bench.rivals import compiled
from bench.scenario import Scenario
from tests.forked import module_here

SHORT = Pace(rounds=2, warm=0.05, length=0.5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Written by two processes at the same time."""
    import torch  # noqa: F401 - once for both

    root = tmp_path_factory.mktemp("bench")
    both = [module_here("bench.models", str(root)) for _ in range(2)]
    for process in both:
        process.join(500)
    assert [process.exitcode for process in both] == [0, 0]
    return Cache(root)


def test_two_processes_may_write_the_models_at_the_same_time(cache: Cache) -> None:
    assert list(cache.root.rglob("*.onnx"))
    assert not list(cache.root.rglob("*.part"))


def test_the_servers_compute_the_same_and_every_layout_is_measured(cache: Cache, forked: None) -> None:  # noqa: ARG001 - it patches
    scenarios = (
        Scenario(32, 2),
        Scenario(32, 2, "connections"),
        Scenario(32, 2, "multiplexed"),
        Scenario(32, 2, steps=7),
    )
    everyone = (*(Wire("afternoon", s) for s in scenarios), Wire("echo", scenarios[0]), Local("loop", 32, 4))
    with Rig(cache, ("echo", "afternoon")) as rig:
        rig.check()
        outcome = rig.carry_out(Comparison("single", "small", everyone), SHORT, lambda _: None)
    assert len(outcome.rounds) == 2
    assert all(figure.steps_per_second > 0 for figures in outcome.rounds for figure in figures)


@pytest.mark.skipif("not compiled.available()", reason="apt-get install g++ pkg-config libgrpc++-dev protobuf-compiler")
@pytest.mark.skipif("TIDEGATE_BENCH_COMPILED" not in os.environ, reason="to build it takes half a minute")
def test_the_echo_in_cpp_is_measured_beside_the_others(cache: Cache) -> None:
    everyone = tuple(Wire(server, Scenario(32, 2)) for server in ("compiled", "afternoon"))
    compiled.built(cache.compiled)
    with Rig(cache, ("compiled", "afternoon")) as rig:
        outcome = rig.carry_out(Comparison("single", "small", everyone), SHORT, lambda _: None)
    assert all(figure.steps_per_second > 0 for figures in outcome.rounds for figure in figures)


def test_tidegate_is_measured_in_every_way_of_asking(cache: Cache, forked: None) -> None:  # noqa: ARG001 - it patches
    plain, fleet = Scenario(32, 2), Scenario(32, 10, "fleet")
    traced = Scenario(32, 2, steps=7, traces=True)
    bundled = Scenario(32, 3, "bundled")
    inference = Scenario(32, 3, "multiplexed", protocol="inference")
    everyone = tuple(Wire("tidegate", scenario) for scenario in (plain, fleet, traced, bundled, inference))
    with Rig(cache, ("tidegate",)) as rig:
        rig.check()
        outcome = rig.carry_out(Comparison("single", "small", everyone), SHORT, lambda _: None)
    assert all(figure.steps_per_second > 0 for figures in outcome.rounds for figure in figures)


def test_no_process_outlives_the_rig_when_it_fails(cache: Cache) -> None:
    with pytest.raises(KeyboardInterrupt), Child("load", ["bench.client.load"], cache.log("load")) as child:
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_an_interrupt_between_the_start_of_a_process_and_its_entry_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Child] = []

    def interrupted(child: Child) -> Child:
        entered.append(child)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(Child, "__enter__", interrupted)
    with pytest.raises(KeyboardInterrupt), Rig(Cache(tmp_path), ()):
        pass
    assert [child._process.poll() for child in entered] != [None]


def test_what_goes_wrong_in_a_worker_is_told_to_the_one_who_asked(cache: Cache) -> None:
    with (
        Child("bare", ["bench.bare"], cache.log("bare")) as child,
        pytest.raises(RigError, match="KeyError: 'nothing'"),
    ):
        child.ask({"ask": "nothing", "file": str(cache.served_file(32)), "batch": 1, "traces": False})


def test_a_worker_that_ends_is_noticed(tmp_path: Path) -> None:
    with Child("gone", ["bench.nothing"], tmp_path / "gone.log") as child, pytest.raises(RigError, match="gone"):
        child.ask({})


def test_a_server_that_computes_something_else_is_not_measured() -> None:
    with pytest.raises(RigError, match="away from the model"):
        compare("afternoon", Scenario(32, 1), [[1.0]], [[1.1]])
