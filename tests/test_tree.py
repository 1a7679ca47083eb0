"""What must be true of the tree as it stands: stubs, wheel, who imports whom in a fresh interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from server.__main__ import COMMANDS
from server.errors import Reason
from tidegate.v1 import error_pb2

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
STUBS = "tidegate/v1", "server/edge/oip/stubs"
GENERATED = sorted(str(path.relative_to(ROOT)) for folder in STUBS for path in (ROOT / folder).glob("*_pb2*"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stubs as `make proto` generates them now."""
    folder = tmp_path_factory.mktemp("stubs")
    built = ".venv/.ready"  # what runs this test is the environment already
    command = ["make", "--silent", "-o", built, "proto", f"STUBS={folder}", f"BIN={BIN}", f"READY={built}"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(command, cwd=ROOT, check=True, env=variables)
    return folder


@pytest.mark.parametrize("name", GENERATED)
def test_a_committed_stub_is_what_make_proto_generates(fresh: Path, name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == (fresh / name).read_text(encoding="utf-8")


def test_make_proto_generates_nothing_that_is_not_committed(fresh: Path) -> None:
    assert sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*_pb2*")) == GENERATED


def test_the_messages_of_the_open_inference_protocol_are_those_of_tritonclient() -> None:
    from tritonclient.grpc import model_config_pb2, service_pb2

    from server.edge.oip.stubs import grpc_service_pb2
    from server.edge.oip.stubs import model_config_pb2 as ours

    assert grpc_service_pb2.DESCRIPTOR.serialized_pb == service_pb2.DESCRIPTOR.serialized_pb
    assert ours.DESCRIPTOR.serialized_pb == model_config_pb2.DESCRIPTOR.serialized_pb


def imported(statement: str, **environment: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    variables = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=variables | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


# What `python -m server` and its commands load.
SERVER = ("server.__main__", "server.operations.lifecycle", "server.operations.workers", *COMMANDS.values())


def test_the_server_imports_neither_torch_nor_training() -> None:
    modules = imported(f"import {', '.join(SERVER)}")
    assert {"server", "onnxruntime", "onnx", "grpc"} <= modules
    assert not modules & {"torch", "training", "bench", "demo", "matplotlib", "rich", "opentelemetry", "requests"}


def test_the_client_imports_grpc_protobuf_and_numpy_and_nothing_of_the_applications() -> None:
    modules = imported("import tidegate.cli.running")
    assert {"grpc", "google", "numpy"} <= modules
    assert not modules & {"server", "training", "bench", "demo", "onnx", "onnxruntime", "torch", "matplotlib", "rich"}


def test_the_process_that_measures_imports_no_torch() -> None:
    assert "torch" not in imported("import bench.__main__")


def modules_of(*rooms: str) -> list[str]:
    """The modules of rooms, by name."""
    found = (path.relative_to(ROOT) for room in rooms for path in ROOT.glob(f"{room}/**/*.py"))
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in found)


# These run on the event loop or hold an object that does, and asyncio imports socket.
ON_THE_LOOP = {
    "server.durability": {
        "checkpointer",
        "keeper",
        "leases",
        "limits",
        "null_keeper",
        "parking",
        "pieces",
        "store_thread",
        "takeover",
    },
    "server.durability.upkeep": {"null_upkeep", "upkeep"},
    "server.runtime": {"batcher", "served_model"},
}
CORE = ["server.errors", "server.watermarks", *modules_of("server/durability", "server/runtime", "server/streams")]
REWRITING = modules_of("stepgraph/cells", "stepgraph/graphs", "stepgraph/rewriting")


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What each module loads in an interpreter that has loaded nothing but numpy: a fork of one for each."""
    code = """
import numpy, os, sys
for module in sys.argv[1:]:
    if os.fork() == 0:
        try:
            __import__(module)
            print(module, *{name.split(".")[0] for name in sys.modules}, flush=True)
        finally:
            os._exit(0)
    os.wait()
"""
    command = [sys.executable, "-W", "error", "-c", code, *CORE, *REWRITING]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {module: set(names) for module, *names in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("module", CORE)
def test_a_module_of_the_servers_core_loads_neither_grpc_nor_onnxruntime_nor_a_socket(
    loaded: dict[str, set[str]], module: str
) -> None:
    room, _, name = module.rpartition(".")
    forbidden = {"google", "grpc", "onnx", "onnxruntime", "socket", "sqlite3", "valkey"}
    assert loaded[module] & forbidden == ({"socket"} if name in ON_THE_LOOP.get(room, ()) else set())


@pytest.mark.parametrize("module", REWRITING)
def test_a_module_that_rewrites_loads_no_onnxruntime(loaded: dict[str, set[str]], module: str) -> None:
    assert "onnxruntime" not in loaded[module]


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    statement = """
import importlib.abc, os, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "onnxruntime is imported with telemetry on"
            print("seen")

assert "CI" not in os.environ and "ORT_DISABLE_TELEMETRY" not in os.environ
sys.meta_path.insert(0, Watch())
import server.__main__, server.operations.lifecycle
"""
    assert "seen" in imported(statement)
    assert "seen" in imported(
        statement.replace("server.__main__, server.operations.lifecycle", "stepgraph.running.session")
    )


def test_telemetry_is_off_even_where_the_environment_says_otherwise() -> None:
    for package in ("server", "stepgraph"):
        modules = imported(f"import {package}, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'")
        assert "onnxruntime" not in modules
        imported(
            "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'\n"
            f"import {package}; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
        )


def test_the_wheel_is_said_to_hold_the_client_alone() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["tidegate"]}
    names = {requirement.split(">")[0] for requirement in project["project"]["dependencies"]}
    assert names == {"grpcio", "grpcio-status", "hpack", "numpy", "protobuf"}


def test_the_wheel_holds_the_client_alone(tmp_path: Path) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    (name,) = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    import zipfile

    with zipfile.ZipFile(name) as wheel:
        files = wheel.namelist()
    assert {file.split("/")[0].split("-")[0] for file in files} == {"tidegate"}
    assert {"tidegate/py.typed", "tidegate/v1/sequence_pb2.py", "tidegate/v1/sequence_pb2.pyi"} <= set(files)


def test_the_reasons_of_the_server_are_those_of_the_contract() -> None:
    ours = {f"REASON_{reason.name}": reason.value for reason in Reason}
    assert ours == dict(error_pb2.Reason.items())


# The size of the rooms ------------------------------------------------------------------------------------------------

PACKAGES = ("stepgraph", "tidegate", "server", "training", "bench", "demo")
MOST_FILES = 20  # of Python in a folder
MOST_LINES = 300  # of a file


def python_files(*packages: str) -> list[Path]:
    """What is written by hand; a checkout that is being worked in has files that git does not know yet."""
    found = (path for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    return [path for path in found if path.parent.name not in ("v1", "stubs")]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_folder_holds_more_files_than_one_look_takes_in() -> None:
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in python_files(*PACKAGES, "tests"))
    assert not {folder: count for folder, count in folders.items() if count > MOST_FILES}


def test_no_file_is_longer_than_it_may_be() -> None:
    long = {str(path.relative_to(ROOT)) for path in python_files(*PACKAGES) if lines(path) > MOST_LINES}
    assert not long


def test_how_long_the_product_is_is_said() -> None:
    total = sum(lines(path) for path in python_files("server", "stepgraph", "tidegate"))
    print(f"server, stepgraph and tidegate: {total:,} lines of Python")
    assert total


def test_the_architecture_names_every_room_and_no_other() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = {name.strip("`/") for name in re.findall(r"^\| (`[a-z/]+/`) \|", page, re.MULTILINE)}
    rooms = {f"server/{path.name}" for path in (ROOT / "server").iterdir() if (path / "__init__.py").exists()}
    assert named == rooms | {"stepgraph", "tidegate", "training"}
    assert len(named) == 11
