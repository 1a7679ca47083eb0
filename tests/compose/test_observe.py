"""Prometheus and Grafana beside the server in Compose's profile `observe`; the README's `down` leaves nothing of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.compose.project import REPOSITORY, EngineError, docker
from tests.compose.test_compose import eventually

if TYPE_CHECKING:
    from tests.compose.project import Project


def image(service: str) -> str:
    """The image that a service of docker-compose.yml names."""
    text = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  {service}:\n(?:    .*\n)*?    image: (\S+)", text, re.MULTILINE)
    assert found, service
    return found[1]


def there(service: str) -> str:
    """The image, on this machine or pulled; else the test is skipped."""
    name = image(service)
    try:
        docker("image", "inspect", name)
    except EngineError:
        try:
            docker("pull", "--quiet", name)
        except EngineError as error:
            pytest.skip(f"{name} is not here and cannot be pulled: {error}")
    return name


def test_prometheus_reads_the_server_and_its_alerts_and_down_leaves_nothing_running(up: Project) -> None:
    there("prometheus")
    up.compose("--profile", "observe", "up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "prometheus")

    def asked(query: str) -> str:
        command = ("exec", "--no-TTY", "prometheus", "promtool", "query", "instant", "http://127.0.0.1:9090", query)
        return up.compose("--profile", "observe", *command)

    eventually(lambda: "=> 1" in asked('up{job="tidegate"}'))
    eventually(lambda: "tidegate_models" in asked('tidegate_models{state="ready"}'))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    down = re.search(r"docker compose (--profile '\*' down)", readme)
    assert down
    up.compose("--profile", "*", "down")
    left = docker("ps", "--format", "json", "--filter", f"label=com.docker.compose.project={up.name}")
    assert not [json.loads(line)["Names"] for line in left.splitlines()]


def test_grafana_shows_the_dashboard(up: Project) -> None:
    there("grafana")
    there("prometheus")
    up.compose("--profile", "observe", "up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "grafana")
    asked = ("exec", "--no-TTY", "grafana", "wget", "-qO-", "http://127.0.0.1:3000/api/dashboards/uid/tidegate")
    eventually(lambda: '"title":"Tidegate"' in up.compose("--profile", "observe", *asked))
