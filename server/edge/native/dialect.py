"""The protocol `tidegate.v1` on one stream: turns its requests into calls of a `Stream`, and events into messages."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from server.caller import Caller
from server.edge.exchanges.dialect import Write
from server.edge.fields import NOTHING, Beside, Cut
from server.edge.native import requests
from server.edge.native.plain_steps import PlainSteps
from server.edge.native.responses import Writer
from server.errors import Refusal, TidegateError
from server.meter import Meter
from server.settings import Settings
from server.streams.events import Failed
from server.streams.joined import Member, checked, join
from server.streams.stream import Stream
from tidegate.v1 import sequence_pb2

log = logging.getLogger(__name__)

Request = requests.Read  # a refusal stands for what could not be read


class Single(NamedTuple):
    """A single step, which is taken together with those of other streams that are of the same kind."""

    kind: tuple[Any, ...]
    account: Meter
    request: PlainSteps
    member: Member


class NativeDialect:
    """Translates for one stream of a client."""

    at_once = 64

    def __init__(self, settings: Settings, caller: Caller) -> None:
        if caller.meter.limits.steps_per_second:
            self.at_once = 1  # a message is taken once those before it are charged
        self._most_handles = settings.max_sequences
        self._caller = caller
        most = settings.max_message_bytes
        self._smaller = 0 < caller.meter.limits.message_bytes < most  # than the reader has checked
        self.joins = caller.meter if not self._smaller and self.at_once > 1 else None
        self._writer = Writer(caller.meter.limits.message_bytes if self._smaller else most)
        self.bundle = self._writer.bundle
        self.write = self._writer.write

    def take(self, request: Request, stream: Stream, company: bool) -> None:
        """See Dialect."""
        beside = NOTHING
        if isinstance(request, PlainSteps):
            if self._smaller:
                self._caller.check_message(request.size)
            plain = [(request.layout.name, request.input)]
            stream.steps(request.handle, request.first_step, plain, request.answered, company)
            return
        if not isinstance(request, sequence_pb2.StreamRequest):
            if isinstance(request, Refusal):
                raise request
            beside, request = request.beside, request.message
        if self._smaller:
            self._caller.check_message(request.ByteSize() + sum(map(len, beside.values())))
        if request.HasField("steps"):
            steps = request.steps
            inputs = requests.named_inputs(steps.inputs, beside)
            stream.steps(steps.handle, steps.first_step, inputs, steps.answered, company)
        elif request.HasField("fleet"):
            self._fleet(request.fleet, stream, beside)
        else:
            _take_rare(request, stream, beside)

    def together(self, those: Sequence[Request], stream: Stream) -> bool:
        """See Dialect."""
        if self._smaller:
            return False
        found = requests.single_steps(those)
        return found is not None and stream.together(*found)

    def single(self, request: Request, stream: Stream) -> Single | None:
        """See Dialect."""
        if type(request) is not PlainSteps or (member := stream.member(request.handle, request.first_step)) is None:
            return None
        kind = member.group.model, id(member.group.manner), request.layout
        return Single(kind, member.account, request, member)

    def join(self, singles: Sequence[Single], write: Write) -> bool:
        """See Dialect."""
        plain, members = [single.request for single in singles], [single.member for single in singles]
        try:
            found = checked(members, [(plain[0].layout.name, requests.joined(plain))])
        except Exception:
            log.exception("steps that came together are taken one by one")
            return False
        if found is not None:
            join(
                members,
                np.array([each.first_step for each in plain]),
                found,
                [each.answered for each in plain],
                lambda those, make, each: write(those, lambda: self._writer.several(make()), each),
            )
        return found is not None

    def _fleet(self, message: sequence_pb2.FleetSteps, stream: Stream, beside: Beside) -> None:
        handles, steps, answered = (beside.get(x, x) for x in (message.handles, message.steps, message.answered))
        requests.check_count("handles", len(handles) // 4, self._most_handles)
        stream.fleet(
            requests.numbers(handles, "<u4", "the handles of a fleet"),
            requests.numbers(steps, "<u8", "the steps of a fleet"),
            requests.named_inputs(message.inputs, beside),
            requests.numbers(answered, "<u8", "the answers of a fleet") if answered else None,
        )

    def refusal(self, request: Request, stream: Stream, error: TidegateError) -> Failed:
        """See Dialect."""
        if isinstance(request, Refusal):
            return Failed(error)
        beside = NOTHING
        if isinstance(request, Cut):
            beside, request = request.beside, request.message
        handles, first_step = requests.concerned(request, self._most_handles, beside)
        kind = "steps" if isinstance(request, PlainSteps) else request.WhichOneof("request") or ""
        return Failed(error, handles, first_step, stream.handles.expected(handles), kind)


def _take_rare(request: sequence_pb2.StreamRequest, stream: Stream, beside: Beside) -> None:
    match request.WhichOneof("request"):
        case "open":
            message = request.open
            place = message.handle, message.count or 1, message.model, message.version
            stream.open(*place, requests.manner(message), requests.beginning(message, beside), message.owner)
        case "close" if request.close.park:
            stream.park(request.close.handle, request.close.count)
        case "close":
            stream.close(request.close.handle, request.close.count)
        case "resume":
            resume, manner = request.resume, requests.manner(request.resume)
            stream.opening.resume(resume.handle, resume.sequence_ids, resume.resume_token, resume.answered, manner)
        case "read_state":
            stream.read_state(request.read_state.handle)
        case "rewind":
            stream.rewind(request.rewind.handle, request.rewind.step)
        case "move":
            stream.move(request.move.handle, request.move.version)
        case _:
            raise Refusal("an empty message came; expected open, steps, fleet, close or another")
