from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from server import machine
from server.__main__ import main
from server.options import page, read
from server.settings import Option, Settings

ROOT = Path(__file__).parents[2]


def test_without_a_word_everything_has_its_default() -> None:
    assert read([], {}) == Settings()


def test_the_command_line_goes_before_the_environment() -> None:
    environment = {"TIDEGATE_PORT": "1234", "TIDEGATE_HOST": "0.0.0.0", "TIDEGATE_MODELS": "/m"}  # noqa: S104
    settings = read(["--port", "4321"], environment)
    assert (settings.port, settings.host, settings.models) == (4321, "0.0.0.0", Path("/m"))  # noqa: S104


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.default is not False])
def test_every_setting_can_come_either_way(name: str) -> None:
    default = getattr(Settings(), name)
    other = {
        "models": "elsewhere",
        "host": "::1",
        "log_level": "debug",
        "cache": "off",
        "transport": "grpc",
        "log_format": "json",
    }.get(name, "7")
    by_argument = read([f"--{name.replace('_', '-')}", other], {})
    by_environment = read([], {f"TIDEGATE_{name.upper()}": other})
    assert by_argument == by_environment
    assert getattr(by_argument, name) == type(default)(other) != default


def test_what_is_switched_on_is_a_word_alone_or_yes_in_the_environment() -> None:
    assert read(["--strict"], {}).strict
    assert read([], {"TIDEGATE_STRICT": "yes"}).strict
    assert not read([], {"TIDEGATE_STRICT": "0"}).strict
    with pytest.raises(SystemExit):
        read([], {"TIDEGATE_STRICT": "perhaps"})


def test_help_names_every_setting_in_its_group_with_what_stands_for_its_value_and_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        read(["--help"], {})
    assert caught.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "--strict only models that are proved" in text
    for field in (field for field in fields(Settings) if field.default is not False):
        option: Option = field.metadata["option"]
        entry = re.search(rf"(?<!\[)--{field.name.replace('_', '-')} (\S+) [^[]*?\(default: ([^)]*)\)", text)
        assert entry, field.name
        assert entry.group(1) == (option.value if isinstance(option.value, str) else f"{{{','.join(option.value)}}}")
        assert entry.group(2) == (option.shown or str(field.default))
        assert entry.group(1) not in ("INT", "FLOAT", "STR", "PATH")
    assert "TIDEGATE_" in text
    assert "checkpoints and the store: --store STORE" in text
    assert "limits: --max-sequences COUNT" in text


def test_the_page_of_the_settings_is_what_the_code_says() -> None:
    made = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert made == page(), "write it with: python -m server settings > docs/settings.md"
    for field in fields(Settings):
        assert f"`TIDEGATE_{field.name.upper()}`" in made


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--port", "-1"], {}, "--port is -1"),
        (["--port", "65536"], {}, "--port is 65536"),
        (["--transport", "carrier"], {}, "expected http2 or grpc"),
        (["--port", "http"], {}, "--port"),
        ([], {"TIDEGATE_PORT": "http"}, "TIDEGATE_PORT is 'http'"),
        ([], {"TIDEGATE_PORT": "70000"}, "70000"),
        (["--max-batch", "0"], {}, "--max-batch is 0"),
        (["--max-streams", "-5"], {}, "--max-streams is -5"),
        (["--max-sequences", "0"], {}, "--max-sequences is 0"),
        (["--window-mib", "0"], {}, "--window-mib is 0"),
        (["--max-message-mib", "-1"], {}, "--max-message-mib is -1"),
        (["--poll-seconds", "0"], {}, "--poll-seconds is 0"),
        (["--poll-seconds", "nan"], {}, "--poll-seconds is nan"),
        (["--grace-seconds", "-1"], {}, "--grace-seconds is -1"),
        (["--window-mib", "inf"], {}, "--window-mib is inf"),
        (["--log-level", "loud"], {}, "'loud'"),
        (["--workers", "0"], {}, "--workers is 0"),
        (["--workers", "2", "--store", "memory:"], {}, "--store memory: is of one process alone"),
        (["--workers", "2", "--store", "none"], {}, "--store none is of one process alone"),
        (["--metrics-port", "65536"], {}, "--metrics-port is 65536"),
        (["--metrics-port", "65530", "--workers", "9"], {}, "65538 for the last worker"),
        (["--keep-checkpoints", "251"], {}, "--keep-checkpoints is 251; expected 1 to 250"),
        (["--nothing"], {}, "--nothing"),
        (["--host", ""], {}, "--host is ''; expected an address of this machine, or unix:PATH"),
        (["--host", "unix:"], {}, "--host is 'unix:'; expected an address"),
    ],
)
def test_a_wrong_setting_ends_with_status_2_and_a_sentence(
    arguments: list[str], environment: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        read(arguments, environment)
    assert caught.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert words in said


@pytest.mark.parametrize(
    ("memory", "given", "expected"),
    [
        (2**31, {}, 256),
        (2**31, {"workers": 4}, 64),
        (2**31, {"max_message_mib": 1.0}, 1_024),
        (2**40, {}, 1_024),
        (2**20, {}, 16),
        (2**20, {"max_streams": 300}, 300),
    ],
)
def test_no_more_streams_are_served_than_half_of_the_memory_holds_messages_for_unless_it_is_said(
    monkeypatch: pytest.MonkeyPatch, memory: int, given: dict[str, Any], expected: int
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: memory)
    assert Settings(**given).most_streams == expected


def test_the_memory_of_a_container_is_what_its_limit_says(tmp_path: Path) -> None:
    limit, none, missing = tmp_path / "limit", tmp_path / "none", tmp_path / "missing"
    limit.write_text("123456\n")
    none.write_text("max\n")
    assert machine.memory((none, missing)) > machine.memory((none, missing, limit)) == 123_456


def test_sizes_are_given_in_mib_and_used_in_bytes() -> None:
    settings = read(["--max-message-mib", "0.5", "--window-mib", "2"], {})
    assert (settings.max_message_bytes, settings.window_bytes) == (2**19, 2**21)


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--port", "abc"], {}), ([], {"TIDEGATE_PORT": "abc"})], ids=["option", "variable"]
)
def test_a_value_of_the_wrong_type_is_refused_with_what_was_expected(
    arguments: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read(arguments, environment)
    assert "'abc'; expected a whole number" in capsys.readouterr().err


def test_a_word_that_is_no_command_is_answered_with_the_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["server", "serve"])
    assert main() == 2
    assert "no command 'serve'; expected check, doctor, settings, store, token" in capsys.readouterr().err


def test_by_default_no_owner_and_no_address_may_have_all_there_is_of_anything() -> None:
    settings = Settings()
    assert 0 < settings.share_of(settings.most_streams) < settings.most_streams
    assert 0 < settings.max_per_owner < settings.max_sequences
    assert 0 < settings.max_per_address < settings.max_sequences
    assert 0 < settings.max_parked_per_owner < settings.max_parked
