from __future__ import annotations

from contextlib import ExitStack

import pytest

from server.caller import Caller
from server.edge.admission import Admission
from server.errors import OverLimit, Reason
from server.settings import Settings

ANN, BOB = Caller("ipv4:10.0.0.1"), Caller("ipv4:10.0.0.2")


async def test_an_address_leaves_streams_for_others_and_has_its_own_again_when_they_end() -> None:
    admission = Admission(None, Settings(max_streams=10, max_share=80))  # type: ignore[arg-type]
    with ExitStack() as open_:
        of_ann = [open_.enter_context(admission.stream(ANN.named(str(i)))) for i in range(8)]
        with pytest.raises(OverLimit, match="8 streams are open from your address") as refused:
            open_.enter_context(admission.stream(ANN))
        assert refused.value.reason == Reason.TOO_MANY_STREAMS
        open_.enter_context(admission.stream(BOB))
        assert len(of_ann) + 1 == admission.streams
    assert admission.streams == 0
    with admission.stream(ANN):
        assert admission.streams == 1


async def test_answers_that_are_not_read_count_for_their_address_until_they_have_left() -> None:
    admission = Admission(None, Settings(max_streams=5, max_share=50))  # type: ignore[arg-type]
    left = [admission.answer(ANN) for _ in range(2)]
    with pytest.raises(OverLimit, match="calls are open from your address"):
        admission.answer(ANN)
    left.append(admission.answer(BOB))
    for one in left:
        one()
    assert admission.answer(ANN)


async def test_the_last_streams_are_for_clients_that_have_few_whoever_took_the_others() -> None:
    admission = Admission(None, Settings(max_streams=256, max_share=80))  # type: ignore[arg-type]
    with ExitStack() as open_:
        of_ann = open_.enter_context(ExitStack())
        for _ in range(204):
            of_ann.enter_context(admission.stream(ANN))
        for _ in range(22):
            open_.enter_context(admission.stream(BOB))
        with pytest.raises(OverLimit, match="226 streams are open, and the last 30 are for who has few"):
            admission.stream(BOB)
        for number in range(15):
            for _ in range(2):
                open_.enter_context(admission.stream(Caller(f"ipv4:10.0.1.{number}")))
        with pytest.raises(OverLimit, match="256 streams are open, which is the limit"):
            admission.stream(Caller("ipv4:10.0.2.1"))
        of_ann.close()
        for _ in range(204):  # as a client does that connects again: it has them, whoever has come with few
            of_ann.enter_context(admission.stream(ANN))
    assert not admission.streams


async def test_where_one_address_may_have_all_streams_none_are_kept_for_others() -> None:
    admission = Admission(None, Settings(max_streams=256, max_share=100))  # type: ignore[arg-type]
    with ExitStack() as open_:
        for _ in range(256):
            open_.enter_context(admission.stream(ANN))
