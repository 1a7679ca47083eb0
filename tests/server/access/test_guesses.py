from __future__ import annotations

from server.access.guesses import Guesses


def test_who_guesses_waits_twice_as_long_each_time_and_others_do_not() -> None:
    guesses = Guesses()
    assert [guesses.wrong("a", 0.0) for _ in range(7)] == [0, 0, 0, 0.05, 0.1, 0.2, 0.4]
    assert guesses.wrong("b", 0.0) == 0
    assert max(guesses.wrong("a", 1.0) for _ in range(5_000)) == 10.0
    assert guesses.wrong("a", 700.0) == 0


def test_addresses_without_number_take_no_memory_without_bound() -> None:
    guesses = Guesses()
    for at in range(20_000):
        guesses.wrong(str(at), 0.0)
    assert len(guesses._seen) == 10_000
