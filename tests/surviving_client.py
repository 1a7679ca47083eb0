"""A client made from the rule at the head of sequence.proto alone, as one in another language would be.

Knows no connection: `out` is what it wants to say on the stream that it has, `hear` takes what was said to it, `lost`
says that the stream is gone, `begin` that there is another one. Forgets every input that the rule lets it forget, and
fails loudly where a server breaks its word.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.sequence_pb2 import StreamRequest, StreamResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

# The last one only because the tests' servers are small.
AGAIN = {"STORE_UNAVAILABLE", "DRAINING", "MODEL_NOT_READY", "TOO_MANY_SEQUENCES"}
CLOSED = "CLOSED"


@dataclass(eq=False)
class Survivor:
    """One sequence: what its user gave and got, and what it takes to go on."""

    model: str
    want: int  # the version to open; 0 is the newest
    start: int = 0
    state: pb.State | None = field(default=None, repr=False)
    # who it is
    id: str = ""
    token: str = ""
    version: int = 0
    # its user's
    end: int = 0  # the number of the next input
    answers: list[bytes] = field(default_factory=list, repr=False)
    moves: dict[int, int] = field(default_factory=dict)  # from this step on, this version
    states: list[pb.State] = field(default_factory=list, repr=False)  # that were read
    gone: str = ""  # why it is over
    # for after a loss
    inputs: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    told: int = 0  # the checkpoint that was told of last, and the one before
    before: int = 0
    safe: bool = False  # whether any was told of
    doubted: bool = False  # whether a stream was lost with a Resume on its way
    # on this stream
    handle: int = -1
    ready: bool = False
    sent: int = 0
    asked: str = ""  # rewind, move, close (closing once it is said), and not answered
    target: int = 0
    reads: deque[int] = field(default_factory=deque)

    @property
    def answered(self) -> int:
        """How many answers there are, those before its beginning among them."""
        return self.start + len(self.answers)

    @property
    def settled(self) -> bool:
        """Whether nothing is to be said or heard."""
        return bool(self.gone) or (self.ready and not self.asked and not self.reads and self.answered == self.end)

    def wanted(self, step: int) -> int:
        """The version that this step is to be taken with."""
        return max(((at, v) for at, v in self.moves.items() if at <= step), default=(0, self.want))[1]

    def tell(self, step: int) -> None:
        """So many steps are safe."""
        if step > max(self.told, self.start):
            self.before, self.told, self.safe = self.told, step, True
            for old in [at for at in self.inputs if at < self.before]:
                del self.inputs[old]

    def cut(self, step: int) -> None:
        """It goes on from here, and nothing is known of what came after."""
        self.end = step
        del self.answers[step - self.start :]
        self.inputs = {at: row for at, row in self.inputs.items() if at < step}
        self.states = [state for state in self.states if state.step <= step]
        self.moves = {at: version for at, version in self.moves.items() if at <= step}
        self.told, self.before = min(self.told, step), min(self.before, step)


class SurvivingClient:
    """Any number of sequences on one stream after the other. `most`: how many handles a server lets a stream have."""

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self.all: list[Survivor] = []
        self.out: deque[StreamRequest] = deque()
        self.replayed = 0
        self.resumed = 0
        # this stream's
        self._open: dict[int, Survivor] = {}
        self._opening: dict[int, list[Survivor]] = {}
        self._fleets: deque[dict[int, int]] = deque()  # which handles were sent which steps together
        self._spent: set[int] = set()  # were let go of by the server, and may still be named by it

    # What its user does -----------------------------------------------------------------------------------------------

    def open(self, count: int, model: str, version: int = 0, state: pb.State | None = None) -> list[Survivor]:
        """Opens sequences; empty if there are no handles."""
        start = 0 if state is None else state.step
        fresh = [
            Survivor(model, version, start, state, end=start, sent=start, told=start, before=start)
            for _ in range(count)
        ]
        if not self._say_open(fresh):
            return []
        self.all.extend(fresh)
        return fresh

    def take_up(self, other: Survivor) -> Survivor:
        """Goes on with what another client has opened, and has given us to know."""
        mine = Survivor(other.model, other.want, other.start, other.state, other.id, other.token, other.version)
        mine.end, mine.answers, mine.moves, mine.inputs = (
            other.end,
            list(other.answers),
            dict(other.moves),
            dict(other.inputs),
        )
        mine.told, mine.before, mine.safe = other.told, other.before, other.safe
        self.all.append(mine)
        return mine

    def give(self, one: Survivor, rows: np.ndarray) -> None:
        """Steps of one sequence."""
        for row in rows:
            one.inputs[one.end] = row
            one.end += 1
        self.flush(one)

    def give_fleet(self, members: Sequence[Survivor], rows: np.ndarray) -> None:
        """A step of each of them."""
        together = all(
            one.ready and not one.asked and one.sent == one.end and one.version == one.wanted(one.sent)
            for one in members
        )
        for one, row in zip(members, rows, strict=True):
            one.inputs[one.end] = row
            one.end += 1
        if not together:
            for one in members:
                self.flush(one)
            return
        message = pb.FleetSteps(
            handles=np.array([one.handle for one in members], "<u4").tobytes(),
            steps=np.array([one.sent for one in members], "<u8").tobytes(),
            answered=np.array([one.answered for one in members], "<u8").tobytes(),
            inputs=[wire.encode("", rows)],
        )
        self._fleets.append({one.handle: one.sent for one in members})
        for one in members:
            one.sent = one.end
        self.out.append(StreamRequest(fleet=message))

    def read(self, one: Survivor) -> None:
        """Asks for the state after what was given so far."""
        one.reads.append(one.sent)
        self.out.append(StreamRequest(read_state=pb.ReadState(handle=one.handle)))

    def rewind(self, one: Survivor, step: int) -> None:
        """Goes back."""
        one.asked, one.target = "rewind", step
        self.out.append(StreamRequest(rewind=pb.Rewind(handle=one.handle, step=step)))

    def move(self, one: Survivor, version: int) -> None:
        """Goes over to another version, from the next input on."""
        one.moves[one.end] = version
        self.flush(one)

    def close(self, one: Survivor) -> None:
        """Ends it."""
        one.asked = "close"
        self.flush(one)

    # The stream -------------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """The stream is gone, and whatever was on its way."""
        for one in [one for group in self._opening.values() for one in group if one.id]:
            one.doubted = True
        self.out.clear()
        self._open.clear()
        self._opening.clear()
        self._spent.clear()
        self._fleets.clear()
        for one in self.all:
            self._off(one)

    def begin(self) -> None:
        """Says on this stream what it takes to go on; also again, for those that were refused for now."""
        waiting = [one for one in self.all if not one.gone and one.handle < 0]
        for one in waiting:
            if not one.id:
                self._say_open([one])
        together: dict[tuple[str, int], list[Survivor]] = {}
        for one in waiting:
            if one.id:
                together.setdefault((one.token, one.version), []).append(one)
        for (token, _), group in together.items():
            if not self._resume(group, token):
                for one in group:
                    self._resume([one], token)

    def flush(self, one: Survivor) -> None:
        """Says what may be said of this sequence."""
        if not one.ready or one.asked in ("rewind", "move", "closing") or one.gone:
            return
        if one.version != one.wanted(one.sent):
            one.asked = "move"
            self.out.append(StreamRequest(move=pb.Move(handle=one.handle, version=one.wanted(one.sent))))
            return
        stop = min([one.end, *(at for at in one.moves if at > one.sent)])
        if stop > one.sent:
            rows = np.stack([one.inputs[step] for step in range(one.sent, stop)])
            message = pb.Steps(
                handle=one.handle, first_step=one.sent, answered=one.answered, inputs=[wire.encode("", rows)]
            )
            self.out.append(StreamRequest(steps=message))
            one.sent = stop
            if stop < one.end:
                self.flush(one)
        elif one.asked == "close":
            one.asked = "closing"
            self.out.append(StreamRequest(close=pb.Close(handle=one.handle)))

    def _say_open(self, fresh: list[Survivor]) -> bool:
        handle = self._handles(len(fresh))
        if handle is None:
            return False
        first = fresh[0]
        message = pb.Open(
            handle=handle, count=len(fresh), model=first.model, version=first.want, state=first.state, announce=True
        )
        self._bind(handle, fresh)
        self.out.append(StreamRequest(open=message))
        return True

    def _resume(self, group: list[Survivor], token: str) -> bool:
        handle = self._handles(len(group))
        if handle is None:
            return False
        message = pb.Resume(
            handle=handle,
            sequence_ids=[one.id for one in group],
            resume_token=token,
            answered=[one.answered for one in group],
            announce=True,
        )
        self._bind(handle, group)
        self.out.append(StreamRequest(resume=message))
        return True

    def _handles(self, count: int) -> int | None:
        taken = self._spent | {one.handle for one in self.all if one.handle >= 0}
        free = (h for h in range(self._most - count + 1) if not taken.intersection(range(h, h + count)))
        return next(free, None)

    def _bind(self, handle: int, group: list[Survivor]) -> None:
        self._opening[handle] = group
        for at, one in enumerate(group):
            one.handle = handle + at

    def _unbind(self, one: Survivor, spent: bool) -> None:
        if spent:
            self._spent.add(one.handle)
        self._open.pop(one.handle, None)
        self._off(one)

    def _off(self, one: Survivor) -> None:
        one.handle, one.ready = -1, False
        one.asked = "close" if one.asked == "closing" else one.asked
        one.reads.clear()

    # What is heard ----------------------------------------------------------------------------------------------------

    def hear(self, response: StreamResponse) -> None:
        """Takes in a message."""
        for one in (response, *response.more):
            kind = one.WhichOneof("response")
            getattr(self, f"_hear_{kind}")(getattr(one, kind))

    def _hear_opened(self, opened: pb.Opened) -> None:
        group = self._opening.pop(opened.handle)
        steps = list(opened.next_steps) or [0] * len(group)
        for at, (one, next_step) in enumerate(zip(group, steps, strict=True)):
            self._open[one.handle] = one
            one.version = opened.version
            if one.id == opened.sequence_ids[at]:
                self.resumed += 1
                self._go_back(one, next_step)
            else:
                one.id, one.token = opened.sequence_ids[at], opened.resume_token
                one.want = opened.version
                one.asked = "close" if one.asked == "close" else ""
                assert next_step == one.start
                one.told = one.before = one.start
                one.safe = False
                one.sent = one.start
            self.replayed += one.answered - one.sent
            one.ready = True
            self.flush(one)

    def _go_back(self, one: Survivor, next_step: int) -> None:
        assert next_step <= one.answered, f"the server wants to go on at {next_step}; we have {one.answered} answers"
        if one.asked == "rewind" and next_step <= one.target:
            one.cut(next_step)
        else:
            assert next_step >= one.before, f"the server wants inputs from {next_step} that we may forget {one}"
        if one.asked != "close":
            one.asked = ""
        one.sent = one.told = one.before = next_step
        one.safe = one.safe or next_step > one.start

    def _hear_answers(self, answers: pb.Answers) -> None:
        tensors = [wire.decode(tensor) for tensor in answers.outputs]
        traces = wire.decode(answers.trace)
        one = self._open[answers.handle]
        for at, trace in enumerate(traces):
            said = b"|".join([*(t[at].tobytes() for t in tensors), trace.tobytes()])
            self._answer(one, answers.first_step + at, said)
        one.tell(answers.checkpointed)

    def _hear_fleet(self, answers: pb.FleetAnswers) -> None:
        tensors = [wire.decode(tensor) for tensor in answers.outputs]
        traces = wire.decode(answers.trace)
        handles = np.frombuffer(answers.handles, "<u4").tolist()
        safe = np.frombuffer(answers.checkpointed, "<u8").tolist() or [0] * len(handles)
        for at, step in enumerate(np.frombuffer(answers.steps, "<u8").tolist()):
            one = self._open[handles[at]]
            self._answer(one, step, b"|".join([*(t[at].tobytes() for t in tensors), traces[at].tobytes()]))
            one.tell(safe[at])

    def _answer(self, one: Survivor, step: int, said: bytes) -> None:
        if step < one.answered:
            assert said == one.answers[step - one.start], f"step {step} got another answer the second time"
            return
        assert step == one.answered, f"an answer to step {step} came; we have {one.answered}"
        one.answers.append(said)

    def _hear_checkpointed(self, told: pb.Checkpointed) -> None:
        steps = np.frombuffer(told.steps, "<u8").tolist()
        for handle, step in zip(np.frombuffer(told.handles, "<u4").tolist(), steps, strict=True):
            self._open[handle].tell(step)

    def _hear_closed(self, closed: pb.Closed) -> None:
        one = self._open[closed.handle]
        assert list(closed.steps) == [one.end]
        self._unbind(one, spent=False)
        one.gone = CLOSED

    def _hear_state(self, said: pb.SequenceState) -> None:
        one = self._open[said.handle]
        if one.reads:  # else we took it for refused together with the steps before it
            assert said.state.step <= one.reads.popleft()
        one.states.append(said.state)

    def _hear_rewound(self, rewound: pb.Rewound) -> None:
        one = self._open[rewound.handle]
        assert rewound.next_step <= one.target
        one.cut(rewound.next_step)
        one.sent, one.asked = rewound.next_step, ""
        self.flush(one)

    def _hear_moved(self, moved: pb.Moved) -> None:
        one = self._open[moved.handle]
        assert moved.next_step == one.sent
        one.version, one.asked = moved.version, ""
        self.flush(one)

    def _hear_released(self, released: pb.Released) -> None:
        reason = _name(released.error)
        for handle in released.handles:
            one = self._open[handle]
            self._unbind(one, spent=True)
            if reason == "TAKEN_OVER" and one.doubted:
                one.doubted = False  # perhaps by ourselves
            elif reason not in AGAIN:
                one.gone = one.gone or reason

    def _hear_failure(self, failure: pb.Failure) -> None:
        reason = _name(failure.error)
        assert failure.error.message
        group = self._opening.pop(failure.handles[0], None) if failure.handles else None
        if group is not None:
            for one in group:
                self._unbind(one, spent=False)
            self._not_opened(group, reason)
            return
        if len(failure.handles) > 1 and reason == "UNKNOWN_HANDLE":
            self._fleet_refused(list(failure.handles), failure.first_step)
            return
        for at, handle in enumerate(failure.handles):
            one = self._open.get(handle)
            if one is None:
                assert handle in self._spent, failure
                continue
            self._refused(one, reason, failure.expected_steps[at] if failure.expected_steps else None, failure)

    def _fleet_refused(self, handles: list[int], first_step: int) -> None:
        """One of them was let go of; the others did not take the step."""
        assert self._spent.intersection(handles)
        steps = next(f for f in self._fleets if list(f) == handles and f[handles[0]] == first_step)
        self._fleets.remove(steps)
        for handle, step in steps.items():
            if handle in self._open:
                self._open[handle].sent = min(self._open[handle].sent, step)

    def _not_opened(self, group: list[Survivor], reason: str) -> None:
        if reason in AGAIN:
            return
        if len(group) > 1:  # one of them is to blame
            for one in group:
                self._resume([one], one.token)
            return
        (one,) = group
        if reason == "UNKNOWN_SEQUENCE" and not one.safe:
            one.id = ""
            one.asked = "close" if one.asked == "close" else ""
            return
        closed = one.asked == "close" and reason in ("SEQUENCE_ENDED", "UNKNOWN_SEQUENCE")
        one.gone = one.gone or (CLOSED if closed else reason)

    def _refused(self, one: Survivor, reason: str, expected: int | None, failure: pb.Failure) -> None:
        if one.asked and one.answered < one.sent and reason == "STORE_UNAVAILABLE":  # of the steps before it
            assert expected is not None
            one.sent = expected
        elif one.asked == "rewind" and reason in ("CHECKPOINT_GONE", "STORE_UNAVAILABLE"):
            one.asked = ""
            self.flush(one)
        elif one.asked == "move" and reason in ("STORE_UNAVAILABLE", "TOO_MANY_SEQUENCES", "WRONG_STATE", "DRAINING"):
            one.asked = ""
            if reason == "WRONG_STATE":
                del one.moves[one.sent]
            # else it is asked again with what is said next
        elif reason in ("STORE_UNAVAILABLE", "WRONG_STEP", "TOO_MANY_SEQUENCES"):  # it sleeps, and cannot be woken
            one.reads.clear()
            if expected is not None:
                one.sent = min(one.sent, expected)
        elif reason == "UNKNOWN_HANDLE" and "wait for the answer" in failure.error.message:
            one.sent = one.answered  # we took what was refused before it for the rewind or the move
        elif reason == "UNKNOWN_HANDLE" and "is being closed" in failure.error.message:
            pass  # the server gives it up, and Released is to come
        else:
            raise AssertionError(failure)


def _name(error: error_pb2.Error) -> str:
    return error_pb2.Reason.Name(error.reason).removeprefix("REASON_")
