"""Both clients are read in the same way: `help`, and what is given and comes back."""

import inspect

import pytest

import tidegate

PAIRS = [
    (tidegate.Client, tidegate.AsyncClient),
    (tidegate.Sequence, tidegate.AsyncSequence),
    (tidegate.Fleet, tidegate.AsyncFleet),
]
APART = {"close", "stream"}  # of a client, and of a sequence: what is iterated over differs


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in inspect.getmembers(kind, callable) if not name.startswith("_")}


@pytest.mark.parametrize(("kind", "theirs"), PAIRS)
def test_methods_of_both_clients_take_the_same_and_say_the_same(kind: type, theirs: type) -> None:
    assert set(public(kind)) == set(public(theirs)) - {"leave"}
    for name, method in public(kind).items():
        other = public(theirs)[name]
        assert inspect.signature(method).parameters.keys() == inspect.signature(other).parameters.keys()
        if name not in APART:
            assert inspect.signature(method) == inspect.signature(other)
            assert inspect.getdoc(method) == inspect.getdoc(other) is not None


@pytest.mark.parametrize("kind", [kind for kind, _ in PAIRS])
def test_no_method_for_threads_has_to_be_awaited(kind: type) -> None:
    assert not any(inspect.iscoroutinefunction(method) for method in public(kind).values())
