"""A real Prometheus reads a real server under load: every query of the dashboard and every alert runs against it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.processes.child import free_port
from tests.raw_stream import RawStream, close, open_, steps
from tests.running_server import PATIENCE, RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.zoo import Zoo

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "observe"
DASHBOARD = json.loads((OBSERVE / "grafana" / "dashboards" / "tidegate.json").read_text(encoding="utf-8"))
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
ALERTS = re.findall(r"alert: (\w+)\n +expr: (.*)", (OBSERVE / "alerts.yml").read_text(encoding="utf-8"))
ROWS = np.random.default_rng(8).standard_normal((8, 3), dtype=np.float32)

if not (shutil.which("prometheus") and shutil.which("promtool")):
    pytest.skip("there is no prometheus and promtool (Debian: apt install prometheus)", allow_module_level=True)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=OBSERVE, capture_output=True, text=True, check=False)


class Prometheus:
    """Reads one server every 200 ms."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        config = (OBSERVE / "prometheus.yml").read_text(encoding="utf-8").replace("15s", "200ms")
        found = re.sub(
            r" +dns_sd_configs:(.|\n)*", f"    static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n", config
        )
        (folder / "prometheus.yml").write_text(found, encoding="utf-8")
        shutil.copy(OBSERVE / "alerts.yml", folder)
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def get(self, path: str, **given: str) -> Any:  # noqa: ANN401 # JSON
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(given)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success"
        return said["data"]

    def query(self, expression: str) -> list[Any]:
        for name, value in {"$__rate_interval": "10s", "$instance": ".*", "$model": ".*"}.items():
            expression = expression.replace(name, value)
        return list(self.get("query", query=expression)["result"])

    def wait(self, expression: str) -> list[Any]:
        """What a query gives, once it gives something."""
        end = monotonic() + PATIENCE
        while monotonic() < end:
            try:
                if found := self.query(expression):
                    return found
            except OSError:
                pass  # it starts
        raise AssertionError(f"nothing came of {expression}")


async def load(address: str) -> None:
    """Sequences that come, step, are refused, and go."""
    async with RawStream(address) as stream:
        await stream.ask(open_(count=4))
        for round_ in range(10):
            await stream.run(0, 8 * round_, ROWS)
        await stream.ask(steps(0, 0, ROWS))
        await stream.ask(close(2))


@pytest.fixture(scope="module")
def prometheus(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    from tests.zoo import repository

    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    models = repository(zoo, tmp_path_factory.mktemp("models"), "lstm")
    with RunningServer(models, "--metrics-port", str(port), "--checkpoint-ms", "20") as server:
        found = Prometheus(folder, port)
        try:
            address = server.ready().address
            asyncio.run(load(address))
            found.wait("count_over_time(tidegate_steps_total[1m]) > 3")
            asyncio.run(load(address))
            found.wait("increase(tidegate_steps_total[10s]) > 0")
            yield found
        finally:
            found.stop()


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_each_query_of_the_dashboard_gives_data(prometheus: Prometheus, title: str, expression: str) -> None:
    assert prometheus.wait(expression), title


@pytest.mark.parametrize(("name", "expression"), ALERTS)
def test_what_each_alert_looks_at_is_there_and_it_is_silent_while_nothing_is_wrong(
    prometheus: Prometheus, name: str, expression: str
) -> None:
    if name != "TidegateAbsent" and "Certificate" not in name:  # nothing is absent, and there is no TLS
        assert prometheus.wait(re.sub(r" (==|>) [\d.]+$", "", expression))
    rules = prometheus.get("rules")["groups"][0]["rules"]
    (rule,) = (rule for rule in rules if rule["name"] == name)
    assert rule["health"] != "err", rule
    assert rule["state"] != "firing"


def test_each_alert_fires_when_what_it_is_for_happens_and_not_before() -> None:
    tried = (OBSERVE / "alerts_test.yml").read_text(encoding="utf-8")
    assert {name for name, _ in ALERTS} == set(re.findall(r'alertname="(\w+)"', tried))
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_compose_gives_prometheus_is_valid() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_each_number_of_the_page_is_on_the_dashboard_or_in_an_alert(prometheus: Prometheus) -> None:
    shown = " ".join(expression for _, expression in (*QUERIES, *ALERTS))
    names = prometheus.get("label/__name__/values")
    ours = {re.sub("_(created|bucket|count|sum)$", "", name) for name in names if name.startswith("tidegate_")}
    assert not {name for name in ours if name not in shown}
