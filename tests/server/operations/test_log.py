from __future__ import annotations

import logging

from server.operations.log import RateLimit


def test_what_is_said_again_and_again_is_said_a_few_times_and_then_how_often_it_was_not() -> None:
    now = 0.0
    written: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    handler, log = Written(), logging.getLogger("test.rate")
    handler.addFilter(RateLimit(lambda: now))
    log.addHandler(handler)

    def fail(times: int) -> None:
        for _ in range(times):
            log.error("a call of %s failed", "ann", exc_info=ValueError("with a traceback"))

    fail(1_000)
    assert written == ["a call of ann failed"] * 3
    log.warning("something else")
    assert written.pop() == "something else"
    now = 11.0
    fail(2)
    assert written[3:] == ["a call of ann failed (997 more like this were not written)", "a call of ann failed"]
