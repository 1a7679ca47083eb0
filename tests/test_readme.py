"""What README.md and docs/ show, done against a real server: streams in Python, and one for a stock gRPC tool."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import json_format

import tidegate
from tests.running_server import ROOT, RunningServer
from tidegate.v1.sequence_pb2 import StreamRequest
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (ROOT / "README.md").read_text(encoding="utf-8")
SEQUENCES = (ROOT / "docs" / "sequences.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]
ADDRESS = "localhost:50051"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with RunningServer(ROOT / "models") as server:
        yield server.ready().address


def blocks(kind: str, page: str = README) -> list[str]:
    """The fenced blocks of one kind, in order."""
    return [
        text for found, text in re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if found == kind
    ]


@pytest.mark.parametrize("module", ["tidegate", "stepgraph"])
def test_what_is_shown_in_python_prints_what_stands_below_it(address: str, module: str) -> None:
    (code,) = (block for block in blocks("python") if block.startswith(f"import {module}\n"))
    printed = README[README.index(code) :].split("```\n", 2)[2].split("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 10
    assert (ADDRESS in code) == (module == "tidegate")
    command = [sys.executable, "-c", code.replace(ADDRESS, address)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.stderr == ""
    assert done.stdout.replace("-0.00", "0.00") == printed


def test_what_is_said_of_sequences_that_survive_runs_as_it_stands(address: str) -> None:
    taken_up, values = (textwrap.dedent(block).replace(ADDRESS, address) for block in blocks("py", SEQUENCES))
    assert [taken_up] == [textwrap.dedent(block).replace(ADDRESS, address) for block in blocks("py")]
    names: dict[str, Any] = {"tidegate": tidegate, "steps": [(0.8, 1, 0), *[(0.1, 0, 0)] * 40]}
    exec(taken_up, names)  # noqa: S102 - our own page
    assert [answer.step for answer in names["answers"]] == list(range(41))
    assert names["answer"].step == 41
    assert names["answer"].output[0] == pytest.approx(0.8, abs=0.05)
    with tidegate.connect(address) as client, client.sequence("recall") as sequence:
        sequence.step((0.8, 1, 0))
        exec(values, {"client": client, "sequence": sequence})  # noqa: S102
        assert sequence.next_step <= 1


def test_the_stock_tools_messages_are_answered(address: str) -> None:
    (command,) = (block for block in blocks("sh") if block.startswith("grpcurl"))
    assert f"{ADDRESS} tidegate.v1.Tidegate/Stream <<EOF\n" in command
    body = command.split("<<EOF\n")[1].split("EOF")[0]
    requests = [json_format.ParseDict(message, StreamRequest()) for message in documents(body)]
    with grpc.insecure_channel(address) as channel:
        responses = list(TidegateStub(channel).Stream(iter(requests), timeout=240))
    assert [response.WhichOneof("response") for response in responses] == ["opened", "answers", "closed"]
    answers = responses[1].answers
    assert list(answers.outputs[0].values) == pytest.approx([0, 0, 0.8], abs=0.05)
    assert len(answers.trace.values) == 3 * 4


def documents(text: str) -> Iterator[dict[str, object]]:
    """One JSON object after the other, as a stock tool reads them."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].lstrip()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_exist(page: str) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_every_make_target_that_a_page_names_exists() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    named = {name for page in pages for name in re.findall(r"(?:^|`)make ([a-z-]+)", page, re.MULTILINE)}
    assert named >= {"demo", "test", "check", "serve", "bench", "proto"}
    assert named <= known


def test_each_test_that_the_page_of_threats_names_exists() -> None:
    page = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists() or not re.search(rf"def {name}\(", (ROOT / file).read_text(encoding="utf-8"))
    ]
    assert not missing
