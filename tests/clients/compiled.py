"""The clients in Go and C++, built with what Debian has for them; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.running_server import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
PROTO = ROOT / "proto"
FILES = [f"tidegate/v1/{name}.proto" for name in ("error", "model", "sequence", "tensor", "tidegate")]
GO_SOURCES = Path("/usr/share/gocode")  # where Debian has packages of Go
NEEDED = {
    "go": "golang-go protobuf-compiler protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev "
    "golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev golang-google-genproto-dev "
    "golang-golang-x-net-dev",
    "cpp": "g++ pkg-config protobuf-compiler protobuf-compiler-grpc libgrpc++-dev libprotobuf-dev",
}
OUTCOMES = {  # of a case that both words for a status can end
    "go": {"DEADLINE_EXCEEDED": "DeadlineExceeded", "CANCELLED": "Canceled", "UNAUTHENTICATED": "Unauthenticated"},
    "cpp": dict[str, str](),
}


def missing(language: str) -> str:
    """What is to be installed for a client; empty: nothing."""
    tools = {"go": ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"), "cpp": ("g++", "protoc", "pkg-config")}
    here = all(shutil.which(tool) for tool in tools[language])
    if language == "go":
        here = here and all((GO_SOURCES / "src/google.golang.org" / one).is_dir() for one in ("grpc", "protobuf"))
    else:
        here = (
            here and bool(shutil.which("grpc_cpp_plugin")) and _run("pkg-config", "--exists", "grpc++").returncode == 0
        )
    return "" if here else f"apt-get install {NEEDED[language]}"


def built(language: str, folder: Path) -> Path:
    """The client's binary in a folder."""
    return {"go": _go, "cpp": _cpp}[language](folder)


def _go(folder: Path) -> Path:
    (folder / "src/client").mkdir(parents=True)
    named = [f"--{kind}_opt=M{file}=tidegate/v1" for kind in ("go", "go-grpc") for file in FILES]
    _done("protoc", "-I", PROTO, f"--go_out={folder / 'src'}", f"--go-grpc_out={folder / 'src'}", *named, *FILES)
    shutil.copy(HERE / "go" / "client.go", folder / "src/client")
    places = {"GOPATH": f"{folder}:{GO_SOURCES}", "GO111MODULE": "off", "GOFLAGS": ""}
    binary = folder / "client-go"
    _done("go", "build", "-o", binary, "client", environment=places, folder=folder / "src/client")
    return binary


def _cpp(folder: Path) -> Path:
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}"
    _done("protoc", "-I", PROTO, f"--cpp_out={folder}", f"--grpc_out={folder}", plugin, *FILES)
    return compiled(HERE / "cpp" / "client.cc", *folder.rglob("*.cc"), folder=folder)


def compiled(*sources: Path, folder: Path) -> Path:
    """A program in C++ that uses gRPC."""
    flags = _done("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
    binary = folder / "client-cpp"
    _done("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", folder, *sources, "-o", binary, *flags)
    return binary


def _done(*command: object, environment: dict[str, str] | None = None, folder: Path = ROOT) -> str:
    done = _run(*command, environment=environment, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(
    *command: object, environment: dict[str, str] | None = None, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    variables = os.environ | (environment or {})
    words: Sequence[str] = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=540, check=False)
