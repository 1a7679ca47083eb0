"""The whole demonstration as a stranger sees it in a pipe: it ends by itself and leaves nothing running."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.running_server import PATIENCE, ROOT

LONG = 4 * PATIENCE  # seconds for three trainings on a busy machine


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "demo", "--folder", str(folder)]


def left_running(folder: Path) -> list[str]:
    """Command lines of live processes that were given this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_the_demo_shows_the_lesson_and_the_weather_and_ends(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:14].strip(): line[17:].split() for line in done.stdout.splitlines()}
    assert rows["input gate"] == list("-o-----")
    assert [mark for mark in rows["forget, unit"] if mark in "o-"] == list("o-ooooo")
    assert rows["output gate"] == list("----o-o")
    fading = [line.split() for line in done.stdout.splitlines() if line.startswith("  step ")]
    assert float(fading[-1][3].rstrip("%")) > 99
    assert float(fading[-1][5].rstrip("%")) < 50
    assert sum(line[4:7] == ":00" for line in done.stdout.splitlines()) == 24
    assert "make serve" in done.stdout
    assert all(mark.isprintable() or mark == "\n" for mark in done.stdout)
    assert not left_running(tmp_path)


def test_a_stopped_demo_says_so_in_one_line_and_leaves_nothing_running(tmp_path: Path) -> None:
    demo = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "recall-rnn.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    demo.send_signal(signal.SIGINT)
    _, said = demo.communicate(timeout=LONG)
    assert (demo.returncode, said) == (130, "demo: stopped\n")
    assert not left_running(tmp_path)
