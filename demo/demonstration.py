"""The demonstration: train, export, serve, stream, draw."""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from demo import lesson_page, trainings, weather_page
from demo.errors import DemoError
from demo.lesson import VALUE, take
from demo.page import Page, page
from demo.process import ROOT, Process, uninterrupted
from demo.trainings import LSTM, RNN, WEATHER
from demo.weather import DAY, HOURS, WARM_UP, errors, read, stream_day
from tidegate.client import Client
from tidegate.drawing.names import layers_in_short
from tidegate.errors import TidegateError
from training.errors import TrainingError

_PATIENCE = 60.0  # seconds for a server to start, or for an answer
_PACE = 0.06  # seconds between two hours of weather, for the eye


def run(arguments: Sequence[str]) -> str:
    """What failed, in one line; "" if nothing did. Raises KeyboardInterrupt."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=sys.modules["demo"].__doc__)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".demo", help="for models, runs and logs (default: .demo)"
    )
    folder = parser.parse_args(arguments).folder.resolve()
    try:
        show(page(), folder)
    except (DemoError, TidegateError, TrainingError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def show(to: Page, folder: Path) -> None:
    """All of it. Raises DemoError, TidegateError, TrainingError, OSError."""
    begun = time.monotonic()
    to.title("Tidegate: see what a recurrent network remembers")
    to.say(
        "A recurrent network reads one step at a time and keeps a memory. Three small ones are trained here and now, "
        "then served; the answers, memories and gates below came back from the server over gRPC, step by step."
    )
    _train(to, folder)
    with _served(folder) as client:
        _show_lesson(to, client)
        _show_weather(to, client, folder)
    _show_next(to, time.monotonic() - begun)


def _train(to: Page, folder: Path) -> None:
    to.heading("Training three networks")
    to.say(
        "Two of them learn the same task: remember the value that comes with 'write', say it at 'read', be silent "
        "otherwise. The third learns to forecast the temperature in Beijing."
    )
    to.gap()
    for stale in ("models", "runs"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    trainings.train(trainings.ALL, folder, to)


@contextmanager
def _served(folder: Path) -> Iterator[Client]:
    """A client of a server of its own on a free port."""
    arguments = ["server", "--models", str(folder / "models"), "--host", "127.0.0.1", "--port", "0"]
    arguments += ["--cache", "off", "--store", "memory:"]
    with ExitStack() as processes:
        with uninterrupted():
            server = processes.enter_context(Process("the server", arguments, folder / "server.log"))
        ready = server.wait_for(r"serving \d+ models? on (\S+:\d+)", _PATIENCE)
        # The server is on this machine, whatever proxy the environment names for others.
        with Client(ready[1], timeout=_PATIENCE, options=[("grpc.enable_http_proxy", 0)]) as client:
            yield client


def _show_lesson(to: Page, client: Client) -> None:
    lstm, rnn = take(client, LSTM.name), take(client, RNN.name)
    to.heading("One unit with gates")
    to.say(
        f"You see one LSTM unit over seven steps, from left to right: its memory in the middle, and around it three "
        f"gates that decide what comes in, what stays and what gets out. The value {VALUE} is written at step 1 and "
        "asked for at steps 4 and 6; all other values are there to disturb."
    )
    to.gap()
    to.draw(lesson_page.gates(lstm, to.style))
    to.gap()
    for sentence in lesson_page.reading(lstm):
        to.say(sentence)
    to.heading("The same without gates")
    to.say(
        f"The bars show how much of what was written at step 1 is still there after each step: beside the LSTM unit "
        f"stands a plain RNN unit that was trained on the same task. (Measured: the lesson was streamed twice, with "
        f"{VALUE} and with -{VALUE} written; the bar is how far the two memories are still apart.)"
    )
    to.gap()
    to.draw(lesson_page.memories(lstm, rnn, to.style))
    to.gap()
    to.say(lesson_page.comparison(lstm, rnn))
    to.say(
        "To be fair: the plain unit's random seed was chosen so that its fading can be seen; with other seeds it looks "
        "different. And gates are this easy to read because there is one unit with one thing to do: those of a bigger "
        "network need not be."
    )


def _show_weather(to: Page, client: Client, folder: Path) -> None:
    observed = read()
    day = observed.degrees[(observed.times >= DAY) & (observed.times < DAY + HOURS)]
    drawing = weather_page.DayPage(float(day.min()), float(day.max()), to.width, to.style)
    to.heading("A day of real weather")
    layers = layers_in_short(client.describe(WEATHER.name).layers)
    to.say(
        f"Each line is an hour of {DAY.item():%d %B %Y} in Beijing as it comes in: the temperature, and what the "
        f"network ({layers}) had said 1 and 6 hours before, each with its error. It has never seen this day; the "
        f"{WARM_UP} hours before it were sent ahead in one message."
    )
    to.gap()
    to.draw(drawing.header())
    hours = []
    for hour in stream_day(client, WEATHER.name, observed):
        hours.append(hour)
        to.draw([drawing.line(hour)])
        time.sleep(_PACE if to.console.is_terminal else 0)
    to.draw([drawing.legend()])
    to.gap()
    to.say(
        "How far off it was on average, beside the forecast that nothing will change; the last two lines are the "
        "pipeline's own test on the nine months that it kept aside."
    )
    to.gap()
    test = {line["steps"]: line["errors"] for line in trainings.report(WEATHER, folder)["lines"]}
    to.draw(weather_page.summary(errors(hours), test, to.style))


def _show_next(to: Page, seconds: float) -> None:
    to.heading("What to try next")
    to.say(f"All of this took {seconds:.0f} seconds, and the server has been stopped. In one terminal:")
    to.draw(["", "  make serve", ""])
    to.say("and in another, the network with one unit, drawn as it answers steps of your own (value, write, read):")
    to.draw(
        [
            "",
            "  source .venv/bin/activate",
            "  tidegate describe recall",
            r"  printf '0.8,1,0\n-0.5,0,0\n0.1,0,1\n' | tidegate stream recall",
            "",
        ]
    )
    to.say("Train the forecast in full; the running server picks it up by itself. Then measure the speed:")
    to.draw(["", "  python -m training weather", "  make bench", ""])
