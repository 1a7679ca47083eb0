"""What a request that is refused is said to be about, and when a large one is parsed."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from server.caller import Caller
from server.edge.exchanges.company import Company
from server.edge.exchanges.dialect import Bundle
from server.edge.native import requests
from server.edge.native.dialect import NativeDialect
from server.edge.native.requests import concerned, reader
from server.errors import WrongStep
from server.meter import Limits, Meter
from server.settings import Settings
from server.streams.handles import Handles
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb

MOST = 8


def fleet(count: int) -> pb.StreamRequest:
    handles = np.arange(3, 3 + count, dtype="<u4").tobytes()
    return pb.StreamRequest(fleet=pb.FleetSteps(handles=handles, steps=(7).to_bytes(8, "little") * count))


def resume(count: int) -> pb.StreamRequest:
    return pb.StreamRequest(resume=pb.Resume(handle=3, sequence_ids=[f"a-{n}" for n in range(count)]))


@pytest.mark.parametrize(("request_", "first_step"), [(fleet(MOST), 7), (resume(MOST), 0)], ids=["fleet", "resume"])
def test_the_refusal_of_a_request_names_all_of_its_sequences(request_: pb.StreamRequest, first_step: int) -> None:
    handles, first = concerned(request_, MOST)
    assert (handles.tolist(), first) == (list(range(3, 3 + MOST)), first_step)


@pytest.mark.parametrize("request_", [fleet(300_000), resume(50_000)], ids=["fleet", "resume"])
def test_the_refusal_of_a_request_of_more_sequences_than_may_be_open_names_one(request_: pb.StreamRequest) -> None:
    assert concerned(request_, MOST)[0].tolist() == [3]


@pytest.mark.parametrize("request_", [fleet(50_000), resume(50_000)], ids=["fleet", "resume"])
def test_a_refusal_that_names_50_000_sequences_makes_no_object_of_each(request_: pb.StreamRequest) -> None:
    stream: Any = SimpleNamespace(handles=Handles(60_000))
    stream.handles.mark(stream.handles.new(0, 60_000), 0)  # they take steps, and expect this one
    stream.handles.next[:] = 300
    dialect, error = NativeDialect(Settings(max_sequences=60_000), Caller("", "")), WrongStep("it is not its turn")
    before = sys.getallocatedblocks()
    refused = dialect.refusal(request_, stream, error)
    assert sys.getallocatedblocks() - before < 100
    failure = pb.StreamResponse.FromString(bytes(dialect.write(refused))).failure
    assert list(failure.handles) == list(range(3, 50_003))
    assert list(failure.expected_steps) == [300] * 50_000


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
    assert concerned(request.message, 200_000, request.beside)[0].tolist() == list(range(3, 100_003))


def single(handle: int, size: int) -> pb.StreamRequest:
    inputs = [wire.encode("", np.zeros(size, np.float32))]
    return pb.StreamRequest(steps=pb.Steps(handle=handle, inputs=inputs))


@pytest.mark.parametrize(("size", "apart"), [(3, False), (1_000, True)], ids=["small", "parsed in parts"])
def test_the_requests_of_a_bundle_that_is_parsed_in_parts_are_parsed_one_by_one(size: int, apart: bool) -> None:
    whole = single(0, size)
    whole.more.extend(single(handle, size) for handle in range(1, 40))
    read = reader(2**22)(whole.SerializeToString())
    assert isinstance(read, Bundle)
    parsed = list[int]()
    company = Company(64)
    company.unpack(replace(read, requests=(parsed.append(at) or one for at, one in enumerate(read.requests))))
    assert bool(company.several()) != apart
    assert len(parsed) == (0 if apart else 40)
    for at in range(40):
        taken = company.next()
        assert taken is not None
        assert taken.steps.handle == at
        assert len(parsed) == (at + 1 if apart else 40)
    assert company.next() is None


@pytest.mark.parametrize(("rate", "taken"), [(0.0, 5), (10.0, 1)], ids=["no rate", "a rate"])
def test_a_client_with_a_rate_has_each_message_taken_after_those_before_it_were_charged(
    rate: float, taken: int
) -> None:
    caller = Caller("10.0.0.1", meter=Meter(Limits(steps_per_second=rate)))
    here = [single(handle, 3) for handle in range(5)]
    call = Mock(take=lambda: here.pop(0) if here else None, several=True)
    company = Company(NativeDialect(Settings(), caller).at_once)
    assert company.gather(call.take(), call) == (taken > 1)
    assert len(here) == 5 - taken
