"""One client's sequences: opens them, takes their steps in order, hands them to the batchers, collects the answers.

Knows no gRPC and no asyncio: it is called with requests in our own words, raises Refusals, and emits events. Everything
happens in one thread. Its window bounds what may wait for a client that does not read.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from server import parts
from server.checkpoint import Checkpoint
from server.errors import BadInput, Draining, SequenceGone, TidegateError, WrongState, WrongStep
from server.events import Checkpointed, Closed, Event, Failed, Moved, Opened, Released, Rewound, StateRead
from server.handles import ASLEEP, BUSY, CLOSING, FREE, OPENING, Handles
from server.inputs import Named
from server.keeper import Keeper, Restored
from server.model import ServedModel
from server.parts import Part
from server.replies import Chunk, Fleet, Group, Mark, single
from server.scheduler import Block
from server.selection import Manner, plan
from server.sequence import Life, Move
from server.tenant import Tenant, fit_route, new_ids
from tidegate.v1 import error_pb2

_PIECE_BYTES = 2**20  # answers of long chunks and large fleets go out in messages of about this size
_HELD = 1_024  # requests that may wait for sequences to wake up


class Catalogue(Protocol):
    """Where a stream finds its models."""

    def find(self, name: str, version: int) -> ServedModel:
        """The model to open sequences of; version 0 is the newest. Raises Refusal."""


class Beginning(Protocol):
    """What a new sequence may begin from instead of the model's initial state."""

    @property
    def step(self) -> int:
        """How many steps led to it."""

    @property
    def parts(self) -> Sequence[Part]:
        """The state."""


class Stream:
    """The sequences of one client.

    Args:
        catalogue: where the models are.
        keeper: keeps sequences beyond this stream; None: they end with it.
        max_sequences: the most sequences that this stream may have open, and the limit of its handles.
        window: how many bytes of answers may be on their way before no more steps are run.
        emit: takes each event. The caller says `written` when an answer has left.
        route: what the client wants the ids of its sequences to begin with.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        keeper: Keeper | None,
        max_sequences: int,
        window: int,
        emit: Callable[[Event], None],
        route: str = "",
    ) -> None:
        # fixed
        self._catalogue = catalogue
        self._keeper = keeper
        self._window = window
        self._tell = emit
        self._route = fit_route(route)
        # work
        self._handles = Handles(max_sequences)
        self._outstanding = 0  # bytes of answers that are computed or to be computed, and not written
        self._waiting: deque[tuple[Group, Block, int]] = deque()  # not yet with a batcher, with the size of the answer
        self._blocks: dict[Block, Group] = {}  # with a batcher, oldest first
        self._held: deque[_Held] = deque()  # for sequences that sleep
        self._trips: dict[int, _Trip] = {}  # by handle: those that are being rewound or moved
        self._left = False  # by its server
        self._gone = False  # its client is

    @property
    def full(self) -> bool:
        """Whether the client should be read no further for now."""
        return bool(self._waiting) or self._outstanding >= self._window or len(self._held) >= _HELD

    @property
    def idle(self) -> bool:
        """Whether nothing is being computed or waits to be written."""
        return not self._waiting and not self._blocks and not self._outstanding and not self._held

    # Requests ---------------------------------------------------------------------------------------------------------

    def open(
        self,
        handle: int,
        count: int,
        name: str,
        version: int,
        manner: Manner,
        beginning: Beginning | None = None,
        owner: str = "",
    ) -> None:
        """Opens `count` sequences of a model under the handles from `handle` on."""
        handles = self._handles.new(handle, count)
        model = self._catalogue.find(name, version)
        trace = plan(manner.selection, model.graph.trace, model.graph.layers)
        row = None if beginning is None else parts.together(model.graph, beginning.parts)
        step = 0 if beginning is None else beginning.step
        slots = self._room(model, count)
        if row is not None:
            model.slots.restore(slots, np.tile(row, (count, 1)), np.full(count, step))
        tenants: tuple[Tenant, ...] = ()
        token = ""
        if self._keeper is not None:
            try:
                enrolled = self._keeper.enrol(model, slots, owner, self._route, step, row)
            except TidegateError:
                model.slots.give_back(slots.tolist())
                raise
            tenants, token = enrolled.tenants, enrolled.token
        self._place(handles, slots, step, self._handles.join(model, manner, trace), tenants)
        model.tally.opened += count
        ids = tuple(tenant.id for tenant in tenants) or new_ids(count, self._route)
        steps = (step,) * count if step else ()
        self.emit(Opened(handle, ids, model.name, model.version, trace.columns, token, steps))

    def resume(self, handle: int, ids: Sequence[str], token: str, answered: Sequence[int], manner: Manner) -> None:
        """Continues sequences that were opened before, here or on another server."""
        if self._keeper is None:
            raise SequenceGone("this server keeps no checkpoints, so no sequence can be resumed")
        if len(ids) != len(answered) or len(set(ids)) != len(ids):
            raise BadInput(
                f"a resume came with {len(ids)} ids and {len(answered)} numbers of answers; expected as many of both, "
                "and each id once",
                error_pb2.REASON_MALFORMED,
            )
        handles = self._handles.new(handle, len(ids))
        self._handles.mark(handles, OPENING)
        self._keeper.claim(ids, token, answered, partial(self._resumed, handles, manner, token))

    def steps(self, handle: int, first_step: int, inputs: Named, answered: int = 0, company: bool = False) -> None:
        """Takes consecutive steps of one sequence: `inputs` are [N, ...row] each, or one row.

        With `company` others came together with them, so they had better wait for a batch. `answered`: how many
        answers the client has.
        """
        group = self._handles.group(handle)
        expected = self._handles.next.item(handle)
        slot = self._handles.slots[handle : handle + 1]
        if self._keeper is not None:
            if slot.item() < 0 or self._held:
                again = partial(self.steps, handle, first_step, inputs, answered)
                if self._hold(np.array([handle]), again, first_step):
                    return
            group.model.progress.acked[slot] = min(answered, expected)
        if first_step != expected:
            raise WrongStep(f"steps begin at {first_step}; sequence {handle} expects step {expected} next")
        checked = group.model.check.steps(inputs)
        total = len(next(iter(checked.values())))
        if total == 1 and not company and not self._waiting:
            result = group.model.batcher.at_once(slot, checked, group.trace.wanted)
            if result is not None:
                self._handles.next[handle] = expected + 1
                answer = single(group, handle, expected, slot.item(), result)
                self._outstanding += answer.size
                self._tell(answer)
                return
        self._handles.next[handle] = expected + total
        for start, stop in _pieces(total, group.row_bytes):
            part = checked if total == stop - start else {name: x[start:stop] for name, x in checked.items()}
            reply = Chunk(self, group, handle, expected + start, stop - start)
            self._enqueue(group, Block(slot, stop - start, part, group.trace.wanted, reply), reply.size)

    def fleet(self, handles: np.ndarray, steps: np.ndarray, inputs: Named, answered: np.ndarray | None = None) -> None:
        """Takes a step of each of many sequences: `handles`, `steps` and `answered` [N], `inputs` [N, ...row] each."""
        if not len(handles) or len(handles) != len(steps) or (answered is not None and len(answered) != len(handles)):
            raise BadInput(
                f"a fleet came with {len(handles)} handles and {len(steps)} steps; expected as many of both",
                error_pb2.REASON_MALFORMED,
            )
        group = self._handles.fleet(handles)
        slots, expected = self._handles.slots[handles], self._handles.next[handles]
        if self._keeper is not None:
            if self._held or (slots < 0).any():
                again = partial(self.fleet, handles, steps, inputs, answered)
                if self._hold(handles, again, int(steps[0])):
                    return
            group.model.progress.acked[slots] = 0 if answered is None else np.minimum(answered, expected)
        if not np.array_equal(steps, expected):
            i = int(np.argmax(steps != expected))
            raise WrongStep(f"step {steps[i]} of sequence {handles[i]} came; it expects step {expected[i]} next")
        checked = group.model.check.fleet(inputs, len(handles))
        self._handles.next[handles] += 1
        for start, stop in _pieces(len(handles), group.row_bytes):
            part = {name: x[:, start:stop] for name, x in checked.items()}
            reply = Fleet(self, group, handles[start:stop], expected[start:stop])
            self._enqueue(group, Block(slots[start:stop], 1, part, group.trace.wanted, reply), reply.size)

    def close(self, handle: int, count: int) -> None:
        """Ends sequences once their last step is answered."""
        handles = self._handles.run(handle, max(count, 1))
        if self._hold_back(handles, partial(self.close, handle, count)):
            return
        self._end(handles, _keeper_end, lambda: self.emit(Closed(handle, tuple(self._handles.next[handles].tolist()))))

    def read_state(self, handle: int) -> None:
        """Says what the state is after the steps that were sent before."""
        group = self._handles.group(handle)
        if not self._hold(np.array([handle]), partial(self.read_state, handle), 0):
            self._after(group, np.array([handle]), partial(self._state_reached, group, handle))

    def rewind(self, handle: int, step: int) -> None:
        """Goes back to the newest checkpoint at or before a step, after the steps that were sent before."""
        group = self._handles.group(handle)
        if self._keeper is None:
            raise WrongState("this server keeps no checkpoints", error_pb2.REASON_CHECKPOINT_GONE)
        if not self._hold(np.array([handle]), partial(self.rewind, handle, step), 0):
            trip = self._set_out(handle, _Trip(group, self._handles.tenants[handle]))
            go = partial(
                self._keeper.go_back, self._handles.tenants[handle], step, partial(self._rewound, trip, handle, step)
            )
            self._after(group, np.array([handle]), partial(self._go, trip, handle, go))

    def move(self, handle: int, version: int) -> None:
        """Goes on with another version of the model, after the steps that were sent before."""
        group = self._handles.group(handle)
        if not self._hold(np.array([handle]), partial(self.move, handle, version), 0):
            model = self._catalogue.find(group.model.name, version)
            if not parts.alike(model.graph, group.model.graph):
                raise WrongState(
                    f"version {model.version} keeps another state than version {group.model.version}, so a sequence "
                    "cannot go on with it"
                )
            plan(group.manner.selection, model.graph.trace, model.graph.layers)  # before anything changes
            trip = _Trip(group, self._handles.tenants.get(handle), model, self._room(model, 1))
            self._set_out(handle, trip)
            go = partial(self._move_reached, trip, handle, model)
            self._after(group, np.array([handle]), partial(self._go, trip, handle, go))

    def expected(self, handles: Sequence[int]) -> tuple[int, ...]:
        """The step that each sequence expects next; empty if one of them is not open."""
        return self._handles.expected(handles)

    def leave(self, done: Callable[[tuple[int, ...]], None]) -> None:
        """The server lets go of every sequence: parks them after the steps that were taken; `done` hears which."""
        self._left = True
        self._held.clear()
        self._turn_back(list(self._trips))
        handles = self._handles.open()
        for handle in handles.tolist():
            tenant = self._handles.tenants.get(handle)
            if tenant is not None and tenant.slot >= 0:
                tenant.move(Move.DRAIN)
        if len(handles):
            self._end(handles, _keeper_park, lambda: done(tuple(handles.tolist())))
        else:
            done(())

    def release(self, handles: tuple[int, ...], error: TidegateError) -> None:
        """Tells the client that sequences are not here any more."""
        if handles:
            self.emit(Released(handles, error))

    def abandon(self) -> None:
        """The client is gone: forgets the steps that wait, and parks every sequence, or ends it if it is not kept."""
        self._gone = True
        self._outstanding = 0
        self._held.clear()
        marks = [(group, block, 0) for group, block, _ in self._waiting if not block.steps]
        self._waiting.clear()
        for block, group in list(self._blocks.items()):
            if block.steps:
                group.model.batcher.drop([block])
        for mark in marks:
            self._submit(*mark)
        self._turn_back(list(self._trips))
        still_open = self._handles.open()
        if len(still_open):
            self._end(still_open, _keeper_park, lambda: None)

    def written(self, size: int) -> None:
        """An answer of this size has left: there is room for more steps."""
        self._outstanding -= size
        while self._waiting and self._fits(self._waiting[0][2]):
            self._submit(*self._waiting.popleft())

    # What the keeper says, see tenant.Holder --------------------------------------------------------------------------

    def tell(self) -> None:
        """Of sequences that no answer is under way for, says how much is safe if that is news."""
        handles, steps = [], []
        for group, members in self._handles.split(self._handles.open()):
            if not group.manner.announce:
                continue
            slots = self._handles.slots[members]
            told = np.where(slots < 0, 0, group.model.progress.told[slots])
            quiet = self._handles.next[members] == group.model.slots.done[slots]
            news = quiet & (told > self._handles.told[members])
            self._handles.told[members[news]] = told[news]
            handles.append(members[news])
            steps.append(told[news])
        if handles and sum(map(len, handles)):
            self.emit(Checkpointed(np.concatenate(handles), np.concatenate(steps)))

    def take_away(self, tenants: Sequence[Tenant], error: TidegateError) -> None:
        """They are not here any more: frees what they hold, and tells the client why."""
        self._turn_back([tenant.handle for tenant in tenants])
        # one that is being closed is not told of: its client has done with it
        lost = [tenant.handle for tenant in tenants if self._handles.is_open(tenant.handle)]
        if lost:
            self._end(np.array(lost), _nothing, lambda: self.emit(Released(tuple(lost), error)))

    def put_to_sleep(self, tenant: Tenant) -> bool:
        """Gives the slot of an idle sequence back. False if something of it is under way."""
        handle, model = tenant.handle, tenant.model
        if self._gone or self._waiting or not self._handles.is_open(handle) or self._keeper is None:
            return False
        slot = self._handles.slots.item(handle)
        if self._handles.next.item(handle) != model.slots.done.item(slot):
            return False
        self._keeper.sleep(tenant)
        model.slots.give_back([slot])
        model.sleepers += 1
        self._handles.slots[handle] = ASLEEP
        return True

    # Inside: opening --------------------------------------------------------------------------------------------------

    def _room(self, model: ServedModel, count: int) -> np.ndarray:
        if self._keeper is not None:
            self._keeper.make_room(model, count)
        return model.slots.take(count)

    def _place(
        self, handles: np.ndarray, slots: np.ndarray, steps: np.ndarray | int, group: Group, tenants: Sequence[Tenant]
    ) -> None:
        self._handles.settle(handles, slots, steps, group, tenants)
        for tenant in tenants:
            tenant.holder = self

    def _resumed(self, handles: np.ndarray, manner: Manner, token: str, result: list[Restored] | TidegateError) -> None:
        if self._gone:
            return
        if self._left:
            result = Draining("this server is stopping; resume at another, or here in a while")
        if not isinstance(result, TidegateError):
            try:
                self._take_in(handles, manner, token, result)
            except TidegateError as error:
                result = error
        if isinstance(result, TidegateError):
            self._handles.mark(handles, FREE)
            self.emit(Failed(result, tuple(handles.tolist())))

    def _take_in(self, handles: np.ndarray, manner: Manner, token: str, restored: list[Restored]) -> None:
        model = restored[0].tenant.model
        if any(r.tenant.model is not model for r in restored):
            raise BadInput("sequences of different models cannot be resumed together", error_pb2.REASON_MALFORMED)
        trace = plan(manner.selection, model.graph.trace, model.graph.layers)
        slots = self._room(model, len(handles))
        assert self._keeper is not None
        self._keeper.settle(restored, slots)
        tenants = [r.tenant for r in restored]
        steps = np.array([tenant.steps for tenant in tenants])
        self._place(handles, slots, steps, self._handles.join(model, manner, trace), tenants)
        ids = tuple(tenant.id for tenant in tenants)
        first = int(handles[0])
        self.emit(Opened(first, ids, model.name, model.version, trace.columns, token, tuple(steps.tolist())))

    def _state_reached(self, group: Group, handle: int) -> None:
        model, slot = group.model, self._handles.slots.item(handle)
        state = parts.apart(model.graph, model.slots.row(slot)[0])
        self.emit(StateRead(handle, model.name, model.version, model.slots.done.item(slot), state))

    # Inside: going back, going over -----------------------------------------------------------------------------------

    def _set_out(self, handle: int, trip: "_Trip") -> "_Trip":
        self._handles.mark(np.array([handle]), BUSY)
        self._trips[handle] = trip
        return trip

    def _go(self, trip: "_Trip", handle: int, call: Callable[[], None]) -> None:
        if self._trips.get(handle) is trip:
            call()

    def _arrive(self, trip: "_Trip", handle: int) -> bool:
        """The sequence takes steps again. False if it did before, or is gone."""
        if self._trips.get(handle) is not trip:
            return False
        del self._trips[handle]
        self._handles.unmark(handle, trip.group)
        return True

    def _turn_back(self, handles: Sequence[int]) -> None:
        """Those of them that are being rewound or moved are not: they end as they are."""
        for handle in handles:
            trip = self._trips.get(handle)
            if trip is not None:
                self._arrive(trip, handle)
                trip.give_up()

    def _rewound(self, trip: "_Trip", handle: int, step: int, found: Checkpoint | TidegateError) -> None:
        if not self._arrive(trip, handle):
            return
        if isinstance(found, TidegateError):
            self.emit(Failed(found, (handle,), step, self.expected((handle,))))
            return
        model, slots = trip.group.model, self._handles.slots[handle : handle + 1]
        row = model.graph.initial if found.state is None else found.state
        model.slots.restore(slots, row[np.newaxis], np.array([found.step]))
        assert self._keeper is not None
        assert trip.tenant is not None
        self._keeper.gone_back(trip.tenant)
        self._handles.next[handle] = self._handles.told[handle] = found.step
        self.emit(Rewound(handle, found.step))

    def _move_reached(self, trip: "_Trip", handle: int, model: ServedModel) -> None:
        done = partial(self._moved, trip, handle, model)
        if trip.tenant is None or self._keeper is None:
            done(None)
        else:
            row = trip.group.model.slots.row(self._handles.slots.item(handle))[0].copy()
            self._keeper.anchor(trip.tenant, model, int(self._handles.next[handle]), row, done)

    def _moved(self, trip: "_Trip", handle: int, model: ServedModel, error: TidegateError | None) -> None:
        if not self._arrive(trip, handle):
            return
        group, slots = trip.group, self._handles.slots[handle : handle + 1].copy()
        step = int(self._handles.next[handle])
        if error is not None:
            trip.give_up()
            self.emit(Failed(error, (handle,), step, self.expected((handle,))))
            return
        model.slots.restore(trip.room, group.model.slots.gather(slots), np.array([step]))
        if trip.tenant is not None and self._keeper is not None:
            self._keeper.relocate(trip.tenant, model, trip.room.item())
        group.model.slots.give_back(slots.tolist())
        trace = plan(group.manner.selection, model.graph.trace, model.graph.layers)
        joined = self._handles.join(model, group.manner, trace)
        self._handles.settle(
            np.array([handle]), trip.room, step, joined, [trip.tenant] if trip.tenant is not None else []
        )
        self._handles.leave(group, 1)
        self.emit(Moved(handle, model.version, step, trace.columns))

    # Inside: ending ---------------------------------------------------------------------------------------------------

    def _end(
        self, handles: np.ndarray, farewell: "Callable[[Keeper, Sequence[Tenant]], None]", done: Callable[[], None]
    ) -> None:
        """Frees sequences once all their steps are through, and then calls `done`."""
        split = self._handles.split(handles)
        self._handles.mark(handles, CLOSING)
        left = len(split)

        def through(group: Group, members: np.ndarray) -> None:
            nonlocal left
            self._free(group, members, farewell)
            left -= 1
            if not left:
                done()

        for group, members in split:
            self._after(group, members, partial(through, group, members))

    def _free(self, group: Group, members: np.ndarray, farewell: "Callable[[Keeper, Sequence[Tenant]], None]") -> None:
        slots = self._handles.slots[members]
        tenants = [t for handle in members.tolist() if (t := self._handles.tenants.pop(handle, None)) is not None]
        ours = [tenant for tenant in tenants if tenant.life is not Life.LOST]  # meanwhile
        if self._keeper is not None and ours:
            farewell(self._keeper, ours)
        for tenant in tenants:
            tenant.holder = None
        awake = slots[slots >= 0]
        group.model.slots.give_back(awake.tolist())
        group.model.sleepers -= len(slots) - len(awake)
        if farewell is _keeper_end:
            group.model.tally.closed += len(members)
        self._handles.leave(group, len(members))
        self._handles.mark(members, FREE)

    def _after(self, group: Group, handles: np.ndarray, call: Callable[[], None]) -> None:
        """Calls once all steps of these sequences that were sent so far are through."""
        slots = self._handles.slots[handles]
        awake = slots[slots >= 0]
        if len(awake):
            self._enqueue(group, Block(awake, 0, {}, False, Mark(self, call)), 0)
        else:
            call()

    # Inside: sequences that sleep -------------------------------------------------------------------------------------

    def _hold_back(self, handles: np.ndarray, again: Callable[[], None]) -> bool:
        """Whether a request waits behind others that wait for the same sequences."""
        concerned = any(held.concerns(handles) for held in self._held)
        if concerned:
            self._held.append(_Held(handles, again, 0))
        return concerned

    def _hold(self, handles: np.ndarray, again: Callable[[], None], first_step: int) -> bool:
        """Whether a request waits until its sequences are awake, and for its turn; wakes them."""
        asleep = handles[self._handles.slots[handles] < 0]
        waits = any(held.concerns(handles) for held in self._held)
        if not len(asleep) and not waits:
            return False
        self._held.append(_Held(handles, again, first_step))
        if len(asleep) and not waits:
            assert self._keeper is not None
            self._keeper.wake([self._handles.tenants[h] for h in asleep.tolist()], partial(self._awake, handles))
        return True

    def _awake(self, handles: np.ndarray, error: TidegateError | None) -> None:
        """Takes up what has waited for these sequences, or refuses it."""
        for handle in handles.tolist():
            tenant = self._handles.tenants.get(handle)
            if tenant is not None and tenant.slot >= 0 and self._handles.slots[handle] < 0:
                self._handles.slots[handle] = tenant.slot
                tenant.model.sleepers -= 1
        held, self._held = self._held, deque()
        for one in held:
            if error is not None and one.concerns(handles):
                self._refuse_held(one, error)
                continue
            try:
                one.again()
            except TidegateError as refusal:
                self._refuse_held(one, refusal)

    def _refuse_held(self, held: "_Held", error: TidegateError) -> None:
        handles = tuple(held.handles.tolist())
        self.emit(Failed(error, handles, held.first_step, self.expected(handles)))

    # Inside: running --------------------------------------------------------------------------------------------------

    def _fits(self, size: int) -> bool:
        return not self._outstanding or self._outstanding + size <= self._window

    def _enqueue(self, group: Group, block: Block, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._submit(group, block, size)
        else:
            self._waiting.append((group, block, size))

    def _submit(self, group: Group, block: Block, size: int) -> None:
        self._outstanding += size
        self._blocks[block] = group
        group.model.batcher.submit(block)

    # Called by replies ------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tells the client, unless it is gone."""
        if not self._gone:
            self._tell(event)

    def done(self, block: Block) -> None:
        """A block is through."""
        self._blocks.pop(block, None)

    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None:
        """A step could not be computed: the sequence stands before it, and the steps sent after it are refused."""
        self._outstanding -= freed
        self._handles.next[handle] = step
        self.emit(Failed(error, (handle,), step, (step,)))
        affected = {handle}
        for later, group in self._later(block):
            reply = later.sink
            if isinstance(reply, Chunk | Fleet) and affected.intersection(reply.handles.tolist()):
                affected.update(reply.handles.tolist())
                self._refuse(later, group, reply, f"step {step} of sequence {handle} failed")

    def freed(self, size: int) -> None:
        """So many bytes of answers will not come."""
        self._outstanding -= size

    def _later(self, block: Block) -> list[tuple[Block, Group]]:
        blocks = list(self._blocks.items())
        place = next((i for i, (b, _) in enumerate(blocks) if b is block), len(blocks))
        return blocks[place + 1 :] + [(b, group) for group, b, _ in self._waiting]

    def _refuse(self, later: Block, group: Group, reply: Chunk | Fleet, why: str) -> None:
        if later in self._blocks:
            del self._blocks[later]
            self._outstanding -= reply.size
            group.model.batcher.drop([later])
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[1] is not later)
        handles, first = reply.handles, reply.first_steps
        self._handles.next[handles] = np.minimum(self._handles.next[handles], first)
        error = WrongStep(f"{why}, so the steps sent after it were not taken")
        expected = tuple(self._handles.next[handles].tolist())
        self.emit(Failed(error, tuple(handles.tolist()), int(first[0]), expected))


class _Held:
    """A request that waits."""

    def __init__(self, handles: np.ndarray, again: Callable[[], None], first_step: int) -> None:
        self.handles = handles
        self.again = again
        self.first_step = first_step

    def concerns(self, handles: np.ndarray) -> bool:
        """Whether it is about one of these sequences."""
        return bool(np.isin(self.handles, handles).any())


@dataclass(frozen=True, slots=True, eq=False)
class _Trip:
    """A rewind or a move that is under way. A move has a model and a slot [1] in it already, so that both stay."""

    group: Group
    tenant: Tenant | None
    model: ServedModel | None = None
    room: np.ndarray = field(default_factory=lambda: np.zeros(0, np.intp))

    def give_up(self) -> None:
        """It does not take place."""
        if self.model is not None:
            self.model.slots.give_back(self.room.tolist())


def _keeper_end(keeper: Keeper, tenants: Sequence[Tenant]) -> None:
    keeper.end(tenants)


def _keeper_park(keeper: Keeper, tenants: Sequence[Tenant]) -> None:
    keeper.park(tenants)


def _nothing(_keeper: Keeper, _tenants: Sequence[Tenant]) -> None:
    """They are out of the keeper's books already."""


def _pieces(rows: int, row_bytes: int) -> Sequence[tuple[int, int]]:
    """Cuts rows into runs whose answers are of a handy size."""
    size = max(1, _PIECE_BYTES // row_bytes)
    if rows <= size:
        return ((0, rows),)
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]
