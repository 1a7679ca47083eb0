"""Which sequence a handle stands for: what is worked out for many of them takes time in proportion to their number."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from server.errors import OverLimit
from server.streams import handles as module
from server.streams.handles import FREE, Handles
from server.streams.trace import Manner, Selection, TracePlan
from server.watermarks import Watermarks

PLAN = TracePlan((), 1, slice(0, 0), wanted=False)


def model() -> Any:  # noqa: ANN401 - stands in for a ServedModel
    served = MagicMock(watermarks=Watermarks(64))
    served.graph.outputs, served.graph.dtype = (), np.dtype(np.float32)
    return served


def opened(count: int) -> Handles:
    """Sequences that are each traced in another way."""
    handles, served = Handles(100), model()
    for handle in range(count):
        handles.new(handle, 1)
        group = handles.join(served, Manner(Selection(every=handle + 1)), PLAN)
        handles.settle(np.array([handle]), np.array([handle]), 0, group)
    return handles


class Table(dict[Any, int]):
    """Says when it is gone through."""

    def __iter__(self) -> Any:  # noqa: ANN401 - it does not return
        raise AssertionError("the whole table was gone through")

    items = keys = values = __iter__  # type: ignore[assignment]


def test_a_group_leaves_without_a_look_at_all_the_others() -> None:
    handles = opened(32)
    handles._alike = Table(handles._alike)
    for group, members in handles.split(handles.open()):
        handles.leave(group, len(members))
        handles.mark(members, FREE)
    assert not handles._known
    assert not len(handles._alike)


def test_handles_are_told_apart_by_their_groups_in_their_order() -> None:
    handles = opened(4)
    given = np.array([3, 1, 0, 2])
    parts = handles.split(given)
    assert {(group.manner.selection.every, *members.tolist()) for group, members in parts} == {
        (1, 0), (2, 1), (3, 2), (4, 3)
    }  # fmt: skip
    alike = handles.join(parts[0][0].model, Manner(), PLAN)
    handles.new(10, 3)
    handles.settle(np.arange(10, 13), np.arange(10, 13), 0, alike)
    assert [members.tolist() for group, members in handles.split(np.array([12, 3, 10, 11])) if group is alike] == [
        [12, 10, 11]
    ]


def test_sequences_of_one_stream_differ_in_so_many_ways_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_GROUPS", 4)
    handles = opened(4)
    served = handles.group(0).model
    handles.check_group(served, Manner(Selection(every=4)))
    with pytest.raises(OverLimit, match="differ in 4 ways"):
        handles.check_group(served, Manner(Selection(every=5)))


def test_what_is_told_of_checkpoints_is_worked_out_by_model_however_many_groups_there_are() -> None:
    handles, models = Handles(100), (model(), model())
    for handle in range(40):
        handles.new(handle, 1)
        manner = Manner(Selection(every=handle + 1), announce=handle % 4 != 0)
        handles.settle(np.array([handle]), np.array([handle]), 0, handles.join(models[handle % 2], manner, PLAN))
    told = handles.announced()
    assert [(models.index(each), members.tolist()) for each, members in told] == [
        (1, list(range(1, 40, 2))),
        (0, list(range(2, 40, 4))),
    ]
    assert not Handles(10).announced()


def test_one_that_is_leaving_piece_by_piece_waits_for_nothing_although_it_was_branched() -> None:
    handles = opened(2)
    handles.branched = {0}  # and its sequence has left already
    assert handles.unready(np.array([0, 1])).tolist() == []
