from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.operations.doctor import command
from tests.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[dict[str, str]]]]:
    """Runs it over the committed model; its status and findings."""
    models = shutil.copytree(ROOT / "models", tmp_path / "models")

    def run(*arguments: str, **environment: str) -> tuple[int, list[dict[str, str]]]:
        given = ["--cache", str(tmp_path / "cache"), "--store", f"sqlite:{tmp_path / 'kept.sqlite'}", "--json"]
        given += [] if "--models" in arguments else ["--models", str(models)]
        given += [] if "--port" in arguments else ["--port", "0"]
        status = command.main([*given, *arguments], environment)
        return status, json.loads(capsys.readouterr().out)["findings"]

    return run


def of(found: list[dict[str, str]], subject: str) -> list[tuple[str, str, str]]:
    return [(one["level"], one["text"], one["mend"]) for one in found if one["subject"] == subject]


def test_where_all_is_well_nothing_is_at_fault_and_each_thing_has_a_line(doctor: Callable[..., Any]) -> None:
    status, found = doctor()
    assert status == 0
    assert not [one for one in found if one["level"] == "fault"]
    subjects = {one["subject"] for one in found}
    assert subjects >= {"settings", "exposure", "memory", "processors", "descriptors", "clock", "port", "cache"}
    assert subjects >= {"store", "disk", "models"}
    ((level, text, _),) = of(found, "models")
    assert level == "ok"
    assert text.startswith("recall version 1 is ready")


@pytest.mark.parametrize(
    ("arguments", "subject", "words", "mend"),
    [
        (["--models", "/nowhere"], "models", "/nowhere is no folder", "--models"),
        (["--host", "0.0.0.0"], "exposure", "in clear", "docs/secure.md"),  # noqa: S104
        (["--store", "sqlite:/nowhere/kept.sqlite"], "store", "cannot be made", "folder"),
        (["--store", "carrier:pigeon"], "store", "no address of a store", "--store"),
        (["--tls-cert", "/no.pem", "--tls-key", "/no.key"], "certificate", "/no.pem cannot be read", "PEM"),
        (["--tokens", "/no/tokens"], "tokens", "there is no file of tokens", "token list"),
        (["--observer", "nothing:Here"], "observer", "No module named", "MODULE:CLASS"),
    ],
)
def test_what_keeps_a_server_from_serving_is_a_fault_that_says_what_to_mend(
    doctor: Callable[..., Any], arguments: list[str], subject: str, words: str, mend: str
) -> None:
    status, found = doctor("--quick", *arguments)
    assert status == 1
    assert [(level, True) for level, text, what in of(found, subject) if words in text and mend in what] == [
        ("fault", True)
    ], found


def test_a_setting_that_is_misspelt_in_the_environment_is_a_warning_with_what_it_may_have_meant(
    doctor: Callable[..., Any],
) -> None:
    status, found = doctor("--quick", TIDEGATE_PROT="1", TIDEGATE_CA="ca.pem")
    assert status == 0
    warned = [one for one in of(found, "settings") if one[0] == "warning"]
    assert warned == [("warning", "TIDEGATE_PROT is set, and is no setting", "did you mean TIDEGATE_PORT?")]


def test_a_port_is_free_or_this_servers_or_anothers(doctor: Callable[..., Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, found = doctor("--quick", "--port", str(other.getsockname()[1]))
        assert status == 1
        assert "another program" in of(found, "port")[0][1]
    empty = tmp_path / "empty"
    empty.mkdir()
    with RunningServer(empty) as server:
        port = server.ready().address.rpartition(":")[2]
        status, found = doctor("--quick", "--port", port)
    assert status == 0
    assert of(found, "port") == [("ok", f"a server is on 127.0.0.1:{port} already, and is SERVING", "")]


def test_the_port_of_metrics_is_this_servers_or_anothers_also_where_a_proxy_is_set(
    doctor: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = str(free.getsockname()[1])
    with RunningServer(tmp_path, "--metrics-port", metrics) as server:
        server.ready()
        found = doctor("--quick", "--metrics-port", metrics)[1]
        assert of(found, "port")[1] == ("ok", f"a server's metrics are on 127.0.0.1:{metrics} already", "")
        port = server.address.rpartition(":")[2]  # speaks no HTTP/1.1
        level, text, _ = of(doctor("--quick", "--metrics-port", port)[1], "port")[1]
        assert (level, "another program" in text) == ("warning", True)


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_a_server_on_ipv6_is_named_with_brackets_and_found_by_doctor_and_health_check(
    doctor: Callable[..., Any], tmp_path: Path, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunningServer(tmp_path, "--host", "::1", "--transport", transport) as server:
        place, _, port = server.ready().address.rpartition(":")
        assert place == "[::1]"
        assert of(doctor("--quick", "--host", "::1", "--port", port)[1], "port")[0][0] == "ok"
        command = [sys.executable, "-m", "server.operations.healthcheck", "--host", "::1", "--port", port]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert capsys.readouterr().err == ""


def test_a_unix_socket_is_free_or_this_servers_or_no_socket_or_has_no_folder(
    doctor: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "socket"

    def port() -> tuple[str, str]:
        return of(doctor("--quick", "--host", f"unix:{path}")[1], "port")[0][:2]

    assert port() == ("ok", f"unix:{path} is free")
    (empty := tmp_path / "empty").mkdir()
    with RunningServer(empty, "--host", f"unix:{path}") as server:
        server.ready()
        assert port() == ("ok", f"a server is on unix:{path} already, and is SERVING")
    assert port() == ("ok", f"unix:{path} is free"), "a killed server's is replaced"
    path.unlink()
    path.touch()
    assert port() == ("fault", f"{path} is there and is no socket")
    path = tmp_path / "none" / "socket"
    assert port() == ("fault", f"there is no folder {path.parent}")


def test_a_refused_file_is_a_fault_with_its_reason_and_a_store_is_counted(
    doctor: Callable[..., Any], tmp_path: Path
) -> None:
    bad = tmp_path / "models" / "broken" / "1" / "model.onnx"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no model")
    doctor("--quick")
    from server.stores.open import open_store
    from server.stores.terms import Terms

    open_store(f"sqlite:{tmp_path / 'kept.sqlite'}", Terms()).close()
    status, found = doctor()
    assert status == 1
    (refused,) = (one for one in of(found, "models") if one[0] == "fault")
    assert refused[1].startswith("broken version 1 is refused:")
    assert "server check" in refused[2]
    assert "0 sequences, 0 of them parked" in of(found, "store")[0][1]


def test_rules_that_cannot_be_followed_are_named(doctor: Callable[..., Any], tmp_path: Path) -> None:
    rules = tmp_path / "models" / "recall" / "versions.toml"
    for text, level, words in (
        ("pin = 9", "warning", "says pin = 9, which is gone"),
        ("pin = 'x'", "fault", "pin is 'x'"),
    ):
        rules.write_text(text)
        _, found = doctor("--quick")
        assert [one[0] for one in of(found, "models") if words in one[1]] == [level]


def test_a_password_of_the_store_is_not_shown(doctor: Callable[..., Any]) -> None:
    _, found = doctor("--quick", "--store", "valkey://ann:secret@127.0.0.1:1/0")
    ((level, text, _),) = of(found, "store")
    assert level == "fault"
    assert text.startswith("valkey://127.0.0.1:1/0: ")
    assert "secret" not in json.dumps(found)


def test_in_a_pipe_it_writes_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--models", str(ROOT / "models"), "--cache", str(tmp_path), "--store", "none", "--port", "0", "--quick"]
    assert command.main(given, {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith("warning  store        none: sequences end with their server") for line in lines)
    assert any(line.strip().startswith("-> give --store sqlite:") for line in lines)
    assert re.fullmatch(r"\d+ ok, (1 warning|\d+ warnings), 0 faults", lines[-1])
