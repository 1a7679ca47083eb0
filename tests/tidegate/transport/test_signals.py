"""Signals are held back while something is done that must not be left half done."""

import signal
import threading
from collections.abc import Iterator

import pytest

from tidegate.transport.signals import undisturbed


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_comes_once_the_call_is_over_to_the_handler_that_it_is_for() -> None:
    said = []
    signal.signal(signal.SIGTERM, lambda *_: said.append("stopped"))

    def call() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        said.append("done")

    with pytest.raises(KeyboardInterrupt):
        undisturbed(call)
    assert said == ["done", "stopped"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_as_before_whatever_the_call_raises_and_those_of_the_system_stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, lambda *_: (_ for _ in ()).throw(LookupError("from a handler")))

    def call() -> None:
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        signal.raise_signal(signal.SIGUSR1)  # it is not held back

    with pytest.raises(LookupError, match="from a handler"):
        undisturbed(call)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_change_no_handler() -> None:
    seen = []
    thread = threading.Thread(target=undisturbed, args=(lambda: seen.append(signal.getsignal(signal.SIGINT)),))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
