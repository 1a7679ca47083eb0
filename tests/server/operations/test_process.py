"""A server's process ends, whatever its threads wait for."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIFE = """
import asyncio, sys, threading
from pathlib import Path
from server.operations.process import run
from server.settings import Settings

async def life():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    {last}

print(run(Settings(models=Path(sys.argv[1])), life))
"""


@pytest.mark.parametrize(("last", "status"), [("pass", 0), ("raise OSError('the port is taken')", 1)])
def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path, last: str, status: int) -> None:
    command = [sys.executable, "-c", LIFE.format(last=last), str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, timeout=500, check=False).returncode == status


def test_a_process_that_leaves_has_said_all_and_ends_with_its_status() -> None:
    code = "from server.operations.process import leave; print('last words', end=''); leave(3)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "last words", "")
