from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from server.operations import log
from server.operations.log import RateLimit
from server.settings import Settings


def test_what_is_said_again_and_again_is_said_a_few_times_and_then_how_often_it_was_not() -> None:
    now = 0.0
    written: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    handler, logger = Written(), logging.getLogger("test.rate")
    handler.addFilter(RateLimit(lambda: now))
    logger.addHandler(handler)

    def fail(times: int) -> None:
        for _ in range(times):
            logger.error("a call of %s failed", "ann", exc_info=ValueError("with a traceback"))

    fail(1_000)
    assert written == ["a call of ann failed"] * 3
    logger.warning("something else")
    assert written.pop() == "something else"
    now = 11.0
    fail(2)
    assert written[3:] == ["a call of ann failed (997 more like this were not written)", "a call of ann failed"]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., list[str]]]:
    """Begins the log with settings; what was written since."""
    root = logging.getLogger()
    kept = root.handlers[:], {name: logging.getLogger(name).level for name in (None, "server", "stepgraph", "tidegate")}

    def begun(*records: tuple[str, int, str], **settings: str) -> list[str]:
        root.handlers[:] = []  # else nothing is added beside those of pytest
        log.begin(Settings(**settings), "worker 1")
        for name, level, message in records:
            logging.getLogger(name).log(level, message)
        return capsys.readouterr().err.splitlines()

    yield begun
    root.handlers[:] = kept[0]
    for name, level in kept[1].items():
        logging.getLogger(name).setLevel(level)


def test_what_clients_sent_cannot_forge_a_line(written: Callable[..., list[str]]) -> None:
    (line,) = written(("server.x", logging.INFO, "model 'a\n2026-01-01 INFO server: serving\x1b[31m' is unknown"))
    assert line.endswith(r"INFO worker 1 server.x: model 'a\n2026-01-01 INFO server: serving\x1b[31m' is unknown")


def test_at_debug_libraries_say_only_what_is_wrong(written: Callable[..., list[str]]) -> None:
    records = [(name, logging.DEBUG, "noise") for name in ("asyncio", "hpack", "h2", "valkey", "grpc")]
    lines = written(
        *records, ("server.x", logging.DEBUG, "ours"), ("valkey", logging.WARNING, "theirs"), log_level="debug"
    )
    assert [line.split(": ")[-1] for line in lines] == ["ours", "theirs"]


def test_as_json_each_line_is_an_object_with_time_level_logger_message_process_and_fields(
    written: Callable[..., list[str]],
) -> None:
    assert not written(log_format="json")
    logging.getLogger("server.x").info("one\ntwo", extra={"fields": {"event": "sequence", "steps": 3}})
    logging.getLogger("server.x").error("it failed", exc_info=ValueError("broken"))
    first, second = map(json.loads, written(log_format="json"))
    assert first | {"time": 0} == {
        "time": 0,
        "level": "info",
        "logger": "server.x",
        "process": "worker 1",
        "message": "one\ntwo",
        "event": "sequence",
        "steps": 3,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["time"])
    assert second["exception"] == "ValueError: broken"
