"""What a request that is refused is said to be about, and when a large one is parsed."""

import numpy as np
import pytest

from server.edge.dialect import Bundle
from server.edge.native import requests
from server.edge.native.requests import concerned, reader
from tidegate.v1 import sequence_pb2 as pb

MOST = 8


def fleet(count: int) -> pb.StreamRequest:
    handles = np.arange(3, 3 + count, dtype="<u4").tobytes()
    return pb.StreamRequest(fleet=pb.FleetSteps(handles=handles, steps=(7).to_bytes(8, "little") * count))


def resume(count: int) -> pb.StreamRequest:
    return pb.StreamRequest(resume=pb.Resume(handle=3, sequence_ids=[f"a-{n}" for n in range(count)]))


@pytest.mark.parametrize(("request_", "first_step"), [(fleet(MOST), 7), (resume(MOST), 0)], ids=["fleet", "resume"])
def test_the_refusal_of_a_request_names_all_of_its_sequences(request_: pb.StreamRequest, first_step: int) -> None:
    assert concerned(request_, MOST) == (tuple(range(3, 3 + MOST)), first_step)


@pytest.mark.parametrize("request_", [fleet(300_000), resume(50_000)], ids=["fleet", "resume"])
def test_the_refusal_of_a_request_of_more_sequences_than_may_be_open_names_one(request_: pb.StreamRequest) -> None:
    assert concerned(request_, MOST)[0] == (3,)


def test_a_large_message_is_parsed_in_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    large = fleet(100_000)
    message, cut = large.SerializeToString(), requests.cut
    monkeypatch.setattr(requests, "cut", lambda *_: pytest.fail("it is parsed as it comes in"))
    bundle = reader(2 * len(message))(message)
    assert isinstance(bundle, Bundle)
    assert bundle.large
    monkeypatch.setattr(requests, "cut", cut)
    (request,) = bundle.requests
    assert request.message.fleet.steps in request.beside
    assert concerned(request.message, 200_000, request.beside)[0] == tuple(range(3, 100_003))
