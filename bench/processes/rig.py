"""Carries out a plan: starts the processes, checks that the servers compute the same, and measures in turns."""

import signal
import subprocess
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.figure import Figure
from bench.outcome import Outcome
from bench.plan import ECHOES, IN_BOTH, OURS, Comparison, Contestant, Local, Server, Wire
from bench.processes.cache import Cache
from bench.processes.child import Child, RigError, free_port, stopped_later
from bench.processes.worker import Json
from bench.scenario import HIDDEN_SIZES, Scenario, model_name

# How far two servers' float32 answers to the same steps may be apart.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Pace:
    """How long and how often everything is measured."""

    # How many times each comparison goes round its contestants.
    rounds: int = 5
    # Seconds of load before the window, in which nothing counts.
    warm: float = 0.3
    # Seconds of the window.
    length: float = 1.0


class Rig:
    """The processes of a run, from `with` to the end of the block. `beside`: another checkout, measured in turns."""

    def __init__(self, cache: Cache, servers: Iterable[Server], beside: Path | None = None) -> None:
        self._cache, self._servers, self._beside = cache, tuple(servers), beside
        self._stack = ExitStack()
        self._targets: dict[tuple[Server, bool], Json] = {}
        self._bare: dict[bool, Child] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._load = self._child(stack, "load", ["bench.client.load"])
            for before in (False, True) if self._beside else (False,):
                self._bare[before] = self._child(stack, "bare", ["bench.bare"], before)
                for server in self._servers if not before else set(self._servers) & set(IN_BOTH):
                    self._targets[server, before] = self._start(stack, server, before)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _child(self, stack: ExitStack, name: str, command: list[str], before: bool = False) -> Child:
        name += "-before" * before
        checkout = self._beside if before else None
        with stopped_later() as interrupted:  # between its start and its entry nothing would stop it
            child = stack.enter_context(Child(name, command, self._cache.log(name), checkout))
        if interrupted:
            signal.raise_signal(interrupted[0])
        return child

    def _start(self, stack: ExitStack, server: Server, before: bool) -> Json:
        port, models = free_port(), self._models(server)
        if server == "secure":
            write_certificate(self._cache.certificate)
        child = self._child(stack, server, [*command(server, self._cache, before), "--port", str(port)], before)
        target = {"port": port, "pid": child.pid, "ca": str(self._cache.certificate) if server == "secure" else ""}
        child.serves(self._load, target, models)
        return target

    def _models(self, server: Server) -> list[str]:
        """Name the models that a server must have loaded; only Tidegate can be asked."""
        return [model_name(hidden) for hidden in HIDDEN_SIZES] if server in OURS else []

    def check(self) -> None:
        """Make sure that all servers give the original model's answers."""
        for hidden in HIDDEN_SIZES:
            scenario = Scenario(hidden, 1)
            truth = self._bare[False].ask({"ask": "truth", "file": str(self._cache.served_file(hidden)), "steps": 60})
            for server, before in self._targets:
                if server not in ECHOES:
                    compare(server, scenario, self._sample(server, scenario, before)["outputs"], truth["outputs"])

    def carry_out(self, comparison: Comparison, pace: Pace, progress: Callable[[str], None]) -> Outcome:
        """Measure the contestants in turns, round after round."""
        rounds = []
        for number in range(pace.rounds):
            figures = []
            for contestant in comparison.contestants:
                progress(f"round {number + 1} of {pace.rounds}")
                figures.append(self._measure(contestant, pace))
            rounds.append(tuple(figures))
        return Outcome(comparison, tuple(rounds))

    def _measure(self, contestant: Contestant, pace: Pace) -> Figure:
        timing = {"warm": pace.warm, "length": pace.length}
        if isinstance(contestant, Local):
            return Figure(**self._bare[contestant.before].ask({**self._local(contestant), **timing}))
        question = {"ask": "measure", "target": self._target(contestant), "scenario": asdict(contestant.scenario)}
        return Figure(**self._load.ask({**question, **timing}))

    def _local(self, contestant: Local) -> Json:
        file = str(self._cache.served_file(contestant.hidden))
        return {"ask": contestant.loop, "file": file, "batch": contestant.batch, "traces": contestant.traces}

    def _target(self, contestant: Wire) -> Json:
        """Say where the server is, and to an echo what a real server would answer."""
        target = self._targets[contestant.server, contestant.before]
        if contestant.server not in ECHOES:
            return target
        model: Server = "tidegate" if "tidegate" in self._servers else "afternoon"
        return {**target, "canned": self._sample(model, contestant.scenario)["answer"]}

    def _sample(self, server: Server, scenario: Scenario, before: bool = False) -> Json:
        return self._load.ask({"ask": "sample", "target": self._targets[server, before], "scenario": asdict(scenario)})


def command(server: Server, cache: Cache, before: bool = False) -> list[str]:
    """Say how a server is started; its port comes last."""
    ours = ["server", *cache.options]
    commands = {
        "echo": ["bench.rivals.echo"],
        "compiled": ["bench.rivals.compiled", "--folder", str(cache.compiled)],
        "afternoon": ["bench.rivals.afternoon", "--models", str(cache.afternoon)],
        "least": ["bench.rivals.least", "--models", str(cache.afternoon)],
        "tidegate": [*ours, "--store", f"sqlite:{cache.store('tidegate' + '-before' * before)}"],
        "diligent": [
            *ours,
            "--store",
            f"sqlite:{cache.store('diligent' + '-before' * before)}",
            "--checkpoint-steps",
            "64",
        ],
        "forgetful": [*ours, "--store", "none"],
        "grpcio": [*ours, "--store", f"sqlite:{cache.store('grpcio')}", "--transport", "grpc"],
        "secure": [
            *ours,
            "--store",
            f"sqlite:{cache.store('secure')}",
            "--tls-cert",
            str(cache.certificate),
            "--tls-key",
            str(cache.certificate.with_name("key.pem")),
        ],
    }
    return commands[server]


def write_certificate(cert: Path) -> None:
    """Of this machine, issued by itself; anew for each run."""
    cert.parent.mkdir(parents=True, exist_ok=True)
    kind = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7 -subj /CN=bench"
    files = ["-keyout", str(cert.with_name("key.pem")), "-out", str(cert), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*kind.split(), *files], check=True, capture_output=True)


def compare(server: Server, scenario: Scenario, outputs: list[list[float]], truth: list[list[float]]) -> None:
    """Refuse to measure a server that computes something else."""
    apart = max(
        abs(a - b) for row, wanted in zip(outputs, truth, strict=True) for a, b in zip(row, wanted, strict=True)
    )
    if apart > TOLERANCE:
        raise RigError(f"{server} answers {scenario.model} up to {apart:.1e} away from the model itself")
