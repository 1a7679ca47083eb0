"""Of the layouts that come, those few are known that come most."""

from tidegate.plain.layouts import MOST, OFTEN, Layouts


class Layout:
    uses = 0


def full() -> tuple[Layouts[Layout], list[Layout]]:
    """As many layouts as there may be, under one byte each."""
    layouts, those = Layouts[Layout](), [Layout() for _ in range(MOST)]
    for number, layout in enumerate(those):
        assert layouts.wants(b"%c" % number)
        layouts.put(b"%c" % number, layout)
    return layouts, those


def test_one_that_is_known_is_not_wanted_again() -> None:
    layouts, _ = full()
    assert not any(layouts.wants(b"\0") for _ in range(2 * OFTEN))


def test_one_that_comes_often_takes_the_place_of_the_one_that_is_used_least() -> None:
    layouts, those = full()
    for layout in those:
        layout.uses = 5
    those[7].uses = 4
    assert [layouts.wants(b"new") for _ in range(OFTEN)] == [False] * (OFTEN - 1) + [True]
    layouts.put(b"new", new := Layout())
    assert layouts.all == [*those[:7], *those[8:], new]


def test_those_that_are_used_as_often_keep_their_places() -> None:
    layouts, those = full()
    for _ in range(3):
        for layout in those:
            layout.uses += OFTEN
        assert not any(layouts.wants(b"new") for _ in range(OFTEN))
    assert layouts.all == those


def test_ever_new_ones_are_not_counted_without_end() -> None:
    layouts, those = full()
    assert not any(layouts.wants(b"%d" % number) for number in range(10_000))
    assert len(layouts._came) <= OFTEN
    assert layouts.all == those


def test_who_sends_ever_new_ones_keeps_no_other_from_being_known() -> None:
    layouts, _ = full()
    others = (layouts.wants(b"other %d" % number) for number in range(10_000))
    assert any([layouts.wants(b"new"), *(next(others) for _ in range(2))][0] for _ in range(300))
    assert len(layouts._came) <= 256
