"""The echo in C++ (`echo.cc`), built where a compiler and gRPC's library for it are, and run in this process's place.

apt-get install g++ pkg-config protobuf-compiler libgrpc++-dev libprotobuf-dev
"""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("echo.cc")
PROTO = Path(__file__).parents[2] / "proto"
_FILES = [f"tidegate/v1/{name}.proto" for name in ("error", "model", "sequence", "tensor")]
_FLAGS = "pkg-config", "--cflags", "--libs", "grpc++", "protobuf"


def available() -> bool:
    if not all(shutil.which(tool) for tool in ("g++", "protoc", "pkg-config")):
        return False
    return subprocess.run(_FLAGS, capture_output=True, check=False).returncode == 0


def built(folder: Path) -> Path:
    """The program in a folder; built unless it is there and no older than its source."""
    program = folder / "echo-cpp"
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["protoc", "-I", PROTO, f"--cpp_out={folder}", *_FILES], check=True)
    made = [str(folder / file.replace(".proto", ".pb.cc")) for file in _FILES]
    flags = subprocess.run(_FLAGS, capture_output=True, text=True, check=True).stdout.split()
    new = program.with_suffix(".new")
    subprocess.run(["g++", "-std=c++17", "-O2", "-I", folder, SOURCE, *made, "-o", new, *flags], check=True)
    new.replace(program)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.compiled", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the program lies, or is built")
    parser.add_argument("--port", required=True)
    given = parser.parse_args()
    program = built(given.folder)
    os.execv(program, [program, given.port])  # noqa: S606 - what was built above


if __name__ == "__main__":
    main()
