"""One client's sequences: takes its requests, checks steps and hands them on in order.

Knows no gRPC and no asyncio: a request is a call that may raise a Refusal, and what is sent to the client is an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from server.caller import Caller, Right
from server.durability.sequence import Identity, fit_route
from server.errors import BadInput, Reason, WrongStep
from server.runtime import state_value
from server.runtime.input_check import Named
from server.runtime.scheduler import Block
from server.runtime.turns import AT_ONCE, Turns, once
from server.streams.allowance import Allowance
from server.streams.backlog import Backlog
from server.streams.closing import Closing, Ending
from server.streams.events import Closed, Event, Released, StateRead
from server.streams.handles import Handles
from server.streams.joined import Member, member
from server.streams.moves import Destination, Moves
from server.streams.notices import Notices
from server.streams.opening import MOST_RESUMING, Beginning, Catalogue, Opening, stopping
from server.streams.replies import Chunk, Fleet, Group, chunks, single
from server.streams.together import together
from server.streams.trace import Manner, plan
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper
    from server.runtime.served_model import ServedModel

Ints = Sequence[int]
Inputs = Mapping[str, np.ndarray]  # as the check left them


class Stream:
    """The sequences of one client.

    Args:
        catalogue: where the models are.
        keeper: keeps sequences beyond this stream.
        max_sequences: the most sequences that this stream may have open, and the limit of its handles.
        allowed: how many bytes may wait for the client, and from it.
        emit: takes each event. `written` is to be called when an answer has left.
        caller: the client.
        route: what the ids of its sequences are to begin with.
        turns: share the time for long work between the clients.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        keeper: AnyKeeper,
        max_sequences: int,
        allowed: Allowance,
        emit: Callable[[Event], None],
        caller: Caller,
        route: str = "",
        turns: Turns = AT_ONCE,
    ) -> None:
        # fixed
        self._catalogue = catalogue
        self._caller, self._meter = caller, caller.meter
        self._allowed = allowed
        # sequences, and what is under way for them
        self.handles = Handles(max_sequences)
        self._window = Window(self.handles, allowed, emit, caller.meter)
        self.written = self._window.written  # is called when an answer of so many bytes has left
        self.writes_later = self._window.computing  # with further answers, which may share a message
        aside = turns.line()  # for work that no further request waits for
        self._backlog = Backlog(self.handles, keeper, self._window, aside)
        self._moves = Moves(self.handles, keeper, self._window)
        # their beginning and end
        self._line = turns.line()
        self._closing = Closing(self.handles, keeper, self._window, self._line)
        notices = Notices(self.handles, self._window, self._backlog, self._moves, self._closing, self._line)
        ways = notices, caller, fit_route(route), self._line, aside
        self.opening = Opening(self.handles, keeper, self._window, *ways)

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the client for now."""
        return self._window.full or self._backlog.bytes >= self._allowed.size or self.working

    @property
    def working(self) -> bool:
        """Whether a request is being carried out; the next one has to wait."""
        return bool(self._line.work) or self.opening.resuming >= MOST_RESUMING

    def when_free(self, call: Callable[[], None]) -> None:
        self._line.rested = call

    @property
    def idle(self) -> bool:
        """Whether no step waits or runs, no answer is to be written, and no call of the store is under way."""
        return self._window.idle and not self._backlog.waiting and not self.working and self.handles.at_rest

    # Opening ----------------------------------------------------------------------------------------------------------

    def open(
        self,
        handle: int,
        count: int,
        name: str,
        version: int,
        manner: Manner,
        beginning: Beginning | None = None,
        owner: str = "",
        identity: Identity | None = None,
    ) -> None:
        """Opens `count` sequences under the handles from `handle` on. `identity`: if it is chosen."""
        handles = self.handles.new(handle, count)
        self._caller.require(Right.PREDICT, name)
        model = self._catalogue.find(name, version, count)
        self.opening.open(handles, model, manner, beginning, self._caller.named(owner), identity)

    # Steps ------------------------------------------------------------------------------------------------------------

    def steps(self, handle: int, first_step: int, inputs: Named, answered: int = 0, company: bool = False) -> None:
        """Takes consecutive steps of one sequence: `inputs` are [N, ...row] each, or one row.

        `answered`: how many answers the client has. `company`: other requests came in the same message, so that these
        steps wait for a batch.
        """
        group = self.handles.group(handle)
        expected = self.handles.next.item(handle)
        slot = self.handles.slots.item(handle)
        if slot < 0 or self._backlog.waiting or self.handles.branched:
            # with others that were made ready
            again = partial(self.steps, handle, first_step, inputs, answered, company=True)
            if self._backlog.hold("steps", np.array([handle]), again, first_step, inputs):
                return
        group.model.watermarks.acked[slot] = min(answered, expected)
        if first_step != expected:
            raise WrongStep(f"steps begin at {first_step}; sequence {handle} expects step {expected} next")
        checked = group.model.check.steps(inputs)
        total = len(next(iter(checked.values())))
        self._meter.charge(total)
        alone = total == 1 and not company and not self._window.waiting
        result = group.model.batcher.at_once(slot, checked, group.trace.wanted) if alone else None
        self.handles.next[handle] = expected + total
        if result is None:
            self._enqueue(group, handle, expected, self.handles.slots[handle : handle + 1], checked, total)
        else:
            answer = single(group, handle, expected, slot, result)
            self._window.outstanding += answer.size
            self._window.answer(group, answer)

    def together(self, handles: Ints, steps: Ints, inputs: Named, answered: Ints) -> bool:
        """See `together`."""
        waits = self._backlog.waiting or self.handles.branched
        return not waits and together(self.handles, self._window, self._meter, handles, steps, inputs, answered)

    def member(self, handle: int, step: int) -> Member | None:
        """See `joined`."""
        busy = self._backlog.waiting or self._line.work or self.opening.resuming
        return None if busy else member(self.handles, self._window, self._meter, handle, step)

    def _enqueue(self, group: Group, handle: int, first: int, slot: np.ndarray, inputs: Inputs, total: int) -> None:
        if total == 1 or total <= self._window.piece(group):
            reply = Chunk(self._window, group, handle, first, total)
            self._window.enqueue(group, (handle,), Block(slot, total, inputs, group.trace.wanted, reply))
        else:
            blocks = chunks(self._window, group, handle, first, slot, inputs, self._window.pieces(group, total))
            self._window.enqueue(group, (handle,), next(blocks), blocks, inputs)

    def model(self, handle: int) -> ServedModel:
        return self.handles.group(handle).model

    def answer_as(self, handle: int, manner: Manner) -> None:
        """How the steps that are sent from now on are answered. Raises UnknownHandle, BadInput, OverLimit."""
        model = self.model(handle)
        self.handles.check_group(model, manner)
        self.handles.regroup(handle, manner, plan(manner.selection, model.graph))

    def measure(self, handle: int, inputs: Named) -> tuple[int, int]:
        """How many steps these inputs are, and about how many bytes their answers take. Raises BadInput."""
        group = self.handles.group(handle)
        steps = group.model.check.count(inputs)
        return steps, steps * group.row_bytes

    def fleet(self, handles: np.ndarray, steps: np.ndarray, inputs: Named, answered: np.ndarray | None = None) -> None:
        """Takes a step of each of many sequences: `handles`, `steps` and `answered` [N], `inputs` [N, ...row] each."""
        if not len(handles) or len(handles) != len(steps) or (answered is not None and len(answered) != len(handles)):
            raise BadInput(
                f"a fleet came with {len(handles)} handles and {len(steps)} steps; expected as many of both",
                Reason.MALFORMED,
            )
        group = self.handles.fleet(handles)
        slots, expected = self.handles.slots[handles], self.handles.next[handles]
        if self._backlog.waiting or self.handles.branched or (slots < 0).any():
            again = partial(self.fleet, handles, steps, inputs, answered)
            if self._backlog.hold("fleet", handles, again, int(steps[0]), inputs):
                return
        group.model.watermarks.acked[slots] = 0 if answered is None else np.minimum(answered, expected)
        if not np.array_equal(steps, expected):
            i = int(np.argmax(steps != expected))
            raise WrongStep(f"step {steps[i]} of sequence {handles[i]} came; it expects step {expected[i]} next")
        checked = group.model.check.fleet(inputs, len(handles))
        self._meter.charge(len(handles))
        self.handles.next[handles] += 1
        for start, stop in self._window.pieces(group, len(handles)):
            part = {name: x[:, start:stop] for name, x in checked.items()}
            reply = Fleet(self._window, group, handles[start:stop], expected[start:stop])
            block = Block(slots[start:stop], 1, part, group.trace.wanted, reply)
            self._window.enqueue(group, handles[start:stop].tolist(), block)

    # Between two steps ------------------------------------------------------------------------------------------------

    def read_state(self, handle: int) -> None:
        """Tells the client the state after the steps that were sent before."""
        group, one = self.handles.group(handle), np.array([handle])
        if not self._backlog.hold("read_state", one, partial(self.read_state, handle)):
            self._window.after(group, one, partial(self._state_reached, group, handle))

    def _state_reached(self, group: Group, handle: int) -> None:
        model, slot = group.model, self.handles.slots.item(handle)
        state = state_value.apart(model.graph, model.slots.row(slot)[0])
        self._window.emit(StateRead(handle, model.name, model.version, model.slots.done.item(slot), state))

    def rewind(self, handle: int, step: int) -> None:
        """Goes back to the newest checkpoint at or before a step, after the steps that were sent before."""
        group = self.handles.group(handle)
        if not self._backlog.hold("rewind", np.array([handle]), partial(self.rewind, handle, step)):
            self._moves.rewind(group, handle, step)

    def move(self, handle: int, version: int) -> None:
        """Moves to another version of the model, after the steps that were sent before."""
        group = self.handles.group(handle)
        if not self._backlog.hold("move", np.array([handle]), partial(self.move, handle, version)):
            model = self._catalogue.find(group.model.name, version)
            if model is group.model:
                self._moves.stay(group, handle)
                return
            state_value.fitting((group.model,), model)
            trace = plan(group.manner.selection, model.graph)
            self._moves.move(group, handle, Destination(model, self.opening.room(model, handle), trace))

    # Ending -----------------------------------------------------------------------------------------------------------

    def close(self, handle: int, count: int) -> None:
        handles = self.handles.run(handle, max(count, 1))
        if not self._backlog.queue("close", handles, partial(self.close, handle, count)):
            self._closing.end(handles, Ending.END, partial(self._closed, handle, handles, len(handles)))

    def park(self, handle: int, count: int) -> None:
        """Parks sequences once their last step is answered. Those that are not here any more are passed over.

        Whatever else is under way for these handles is answered before.
        """
        count = max(count, 1)
        self.handles.check(handle, count)
        self._moves.cancel(range(handle, handle + count))
        handles = self.handles.those_open(handle, count)
        if self._backlog.queue("close", handles, partial(self.park, handle, count)):
            return
        closed = partial(self._closed, handle, handles, count)
        self._closing.end(handles, Ending.PARK, partial(self._closing.after, np.arange(handle, handle + count), closed))

    def _closed(self, first: int, handles: np.ndarray, count: int) -> None:
        steps = np.zeros(count, np.int64)
        steps[handles - first] = self.handles.next[handles]
        self._window.emit(Closed(first, tuple(steps.tolist())))

    def leave(self, done: Callable[[tuple[int, ...]], None]) -> None:
        """The server stops: parks all sequences after the steps that were taken; `done` is given their handles."""
        self.opening.stopping = True
        self._backlog.clear()
        self._moves.cancel_all()
        self._line.run(once(partial(self._park_all, done, Ending.LEAVE)))

    def _park_all(self, done: Callable[[tuple[int, ...]], None], leaving: Ending) -> None:
        handles = self.handles.open()
        self._closing.end(handles, leaving, lambda: done(tuple(handles.tolist())))

    def release(self, handles: tuple[int, ...]) -> None:
        """Tells the client that these sequences go on elsewhere."""
        if handles:
            self._window.emit(Released(handles, stopping()))

    def finish(self, done: Callable[[], None]) -> None:
        """The client has sent its last request and has every answer: `done` is called once all sequences are kept."""
        self._line.run(once(partial(self._park_all, lambda _: done(), Ending.ABANDON)))

    def abandon(self) -> None:
        """The client is gone: drops the steps that wait, and parks all sequences, or ends those that are not kept."""
        self._backlog.clear()
        self._window.abandon()
        self._moves.cancel_all()
        self.finish(lambda: None)
