"""A server's process: it ends, whatever its threads wait for; signals; streams that are closed."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tidegate
from tests.running_server import ROOT, RunningServer

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


INTERRUPTED = """
import os, runpy, signal, sys

class Finder:
    def find_spec(name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
runpy.run_module("server", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("module", "command"), [("onnxruntime", []), ("server.operations.doctor.command", ["doctor"])])
def test_ctrl_c_before_a_server_or_command_is_there_ends_it_without_a_traceback(
    module: str, command: list[str]
) -> None:
    started = [sys.executable, "-c", INTERRUPTED.format(module=module), *command]
    ended = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_process_that_leaves_has_said_all_and_ends_with_its_status() -> None:
    code = "from server.operations.process import leave; print('last words', end=''); leave(3)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "last words", "")


def test_sighup_without_a_terminal_changes_nothing_and_says_what_is_read_anew_anyway() -> None:
    with RunningServer(ROOT / "models") as server:
        with tidegate.connect(server.ready().address) as client, client.sequence("recall") as sequence:
            sequence.step((0.8, 1, 0))
            server.process.send_signal(signal.SIGHUP)
            server.line("SIGHUP: models, certificates and tokens are read anew")
            assert sequence.step((0.1, 0, 1)).output[0] > 0.8
        server.terminate()
        assert server.wait() == 0


def test_a_server_whose_terminal_is_closed_stops_in_order(tmp_path: Path) -> None:
    terminal, own = pty.openpty()
    command = [sys.executable, "-m", "server", "--host", f"unix:{tmp_path / 'socket'}", "--store", "memory:"]
    server = subprocess.Popen(command, cwd=ROOT, stdin=own, stderr=subprocess.PIPE, text=True)
    with server, os.fdopen(terminal), os.fdopen(own):
        assert server.stderr is not None
        for line in server.stderr:
            if "serving 1 model" in line:
                break
        server.send_signal(signal.SIGHUP)
        assert "stopping" in server.stderr.readline()
        assert server.wait(60) == 0


def test_a_server_that_is_started_with_closed_streams_gives_their_numbers_to_nothing_else(tmp_path: Path) -> None:
    place = f"unix:{tmp_path / 'socket'}"
    command = [sys.executable, "-m", "server", "--host", place, "--store", f"sqlite:{tmp_path / 'store'}"]
    server = subprocess.Popen(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *command], cwd=ROOT)
    with server:
        while server.poll() is None and not (tmp_path / "socket").exists():
            server.poll()
        with tidegate.connect(place) as client, client.sequence("recall", timeout=60) as sequence:
            sequence.step((0.8, 1, 0))
            assert {Path(f"/proc/{server.pid}/fd/{number}").readlink() for number in range(3)} == {Path(os.devnull)}
        server.terminate()
        assert server.wait(60) == 0
