"""Fixtures of all tests. Ways to measure a server: `tests/lab/growth.py` (memory), `tests/lab/stall.py` (time),
`tests/end_to_end/bystander.py` (another client), `tests/end_to_end/traffic.py` (fifty that outlive anything).
"""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.zoo import Zoo


# A machine that is busy is no fault of what is tested.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

CACHE = "TIDEGATE_TEST_CACHE"  # of proofs: all servers of a run share it, whichever process starts them
WORKER = "PYTEST_XDIST_WORKER"
# The files that take longest come first: one that began last would keep one processor busy alone.
LONGEST = (
    "bench/test_command.py",
    "end_to_end/test_demo.py",
    "simulation/test_random_schedules.py",
    "fuzz/test_fuzz.py",
    "end_to_end/test_survival.py",
    "end_to_end/test_memory.py",
    "models/test_operators.py",
    "models/test_made_files.py",
    "bench/test_rig.py",
    "isolation/test_hostile_files.py",
    "end_to_end/test_life.py",
    "training/test_resume.py",
    "tabular/test_served.py",
    "models/test_random_graphs.py",
    "stores/test_stores.py",
    "cli/test_cli.py",
    "recipes/test_quick_forms.py",
    "end_to_end/test_refusals.py",
    "oip/test_sequences.py",
    "operators/test_page.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-process", action="store_true", help="skip what starts a process")


def pytest_configure() -> None:
    """Puts right what the environment may say and tests cannot do with.

    A shell's background job begins with SIGINT ignored, under nohup SIGHUP too: so would what a test is to stop. Where
    no bytecode is written, each of the hundreds of interpreters that tests start compiles all that it imports. Threads
    of torch (OpenMP) spin while they wait for one another, most of all where more workers run than there are cores.
    """
    gc.disable()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch is not imported yet
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="tidegate-cache-")


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks at it, neither while it is imported nor later."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    if WORKER not in os.environ:
        shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, then those of the training, which are longer than others; keeps the order else."""
    place = {file: at for at, file in enumerate(LONGEST)}
    others = len(LONGEST)
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), others + ("training" not in item.path.parts)))


@cache
def _begin_to_refuse() -> None:
    sys.addaudithook(_refuse_processes)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("no_process"):
        _begin_to_refuse()


def _refuse_processes(event: str, _: tuple[object, ...]) -> None:
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
        pytest.skip("it starts a process")


@contextmanager
def one_worker() -> Iterator[None]:
    """What takes long and is the same for all workers of a run is done by one of them at a time."""
    with Path(os.environ[CACHE], "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    """A repository of small torch networks, some of them unservable; its files are the same for all workers."""
    from tests.zoo import build  # torch takes seconds: only for those who need it

    with one_worker():
        return build(Path(os.environ[CACHE], "zoo"))


@pytest.fixture(scope="session")
def server(zoo: Zoo) -> Iterator[RunningServer]:
    """One server over the zoo, shared by all tests that leave it as it was. It takes messages of up to 1 MiB."""
    with ExitStack() as stack:
        with one_worker():  # the first one proves all models, and the others have its proofs
            running = stack.enter_context(RunningServer(zoo.models, "--max-message-mib", "1")).ready()
        yield running


@pytest.fixture
def start() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers that end with the test: `start(models, "--port", "0")`."""
    with ExitStack() as stack:
        yield lambda models, *arguments, **more: stack.enter_context(RunningServer(models, *arguments, **more))


@pytest.fixture
def lstm_only(zoo: Zoo, tmp_path: Path) -> Path:
    """A repository that holds one small model, `lstm`, and is the test's own."""
    from tests.zoo import repository

    return repository(zoo, tmp_path, "lstm")
