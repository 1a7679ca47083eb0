import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, expected
from tidegate.messages import reason_name
from tidegate.protocol import sequence_books
from tidegate.v1 import error_pb2

ROWS = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)


# One step in, one answer out.


def test_steps_are_answered_in_order_with_their_numbers(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        answers = [sequence.step(row) for row in ROWS[:20]]
    assert [answer.step for answer in answers] == list(range(20))
    np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(ROWS[:20]))
    assert (sequence.model, sequence.version, sequence.id, sequence.next_step) == ("toy", 1, "s0", 20)


def test_gates_are_read_by_name_and_are_not_mixed_up(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        layer = sequence.step([1, 0]).layer[1]
    for part in ("hidden", "cell", "input", "forget", "candidate", "output"):
        np.testing.assert_array_equal(getattr(layer, part), np.array([1, 2, 3]) + len(part))
        np.testing.assert_array_equal(layer[part], getattr(layer, part))
    with client.sequence("pair") as sequence:
        layer = sequence.step({"a": [1], "token": 2}).layer[0]
    assert layer.parts == ("hidden", "update", "reset", "candidate")
    assert layer.update.shape == (2,)


def test_a_gate_that_the_layer_does_not_have_says_what_it_has(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        answer = sequence.step([1, 0])
    with pytest.raises(tidegate.NotTraced, match="no 'update' here; it shows hidden, cell, input, forget"):
        _ = answer.layer[0].update
    with pytest.raises(AttributeError, match=r"layer 2 is not in this trace; it shows the layers \[0, 1\]"):
        _ = answer.layer[2]


@pytest.mark.parametrize("nothing", [False, None, tidegate.Trace(layers=[]), tidegate.Trace(False, False, False)])
def test_without_a_trace_an_answer_says_that_none_was_selected(client: tidegate.Client, nothing: None) -> None:
    with client.sequence("toy", trace=nothing) as sequence, pytest.raises(tidegate.NotTraced, match="no trace was sel"):
        _ = sequence.step([1, 0]).layer


def test_a_trace_shows_what_was_selected(client: tidegate.Client) -> None:
    with client.sequence("toy", trace=tidegate.Trace(cell=False, gates=False, layers=[1], every=2)) as sequence:
        first, second = sequence.step([1, 0]), sequence.step([1, 0])
        block = sequence.chunk(ROWS[:5])
    assert {index: layer.parts for index, layer in first.layer.items()} == {1: ("hidden",)}
    with pytest.raises(tidegate.NotTraced, match=r"every 2\. step"):
        _ = second.layer
    assert block.traced_steps.tolist() == [2, 4, 6]
    assert block.layer[1].hidden.shape == (3, 3)
    np.testing.assert_array_equal(block[2].layer[1].hidden, block.layer[1].hidden[1])
    assert [answer.trace is None for answer in block] == [False, True, False, True, False]


def test_a_trace_of_every_zeroth_step_is_no_trace() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tidegate.Trace(every=0)


def test_several_inputs_and_outputs_go_by_their_names(client: tidegate.Client) -> None:
    with client.sequence("pair") as sequence:
        answer = sequence.step({"a": [1.5], "token": 2})
        block = sequence.chunk({"a": np.zeros((4, 1)), "token": np.arange(4)})
    assert answer.outputs["y"].tolist() == [8]
    assert answer.outputs["top"].dtype == np.int64
    assert block.outputs["top"].shape == (4,)
    with pytest.raises(AttributeError, match=r"2 outputs: read .outputs\[name\]"):
        _ = answer.output


# Chunks, streams, whole sequences.


@pytest.mark.parametrize("part", [10**9, 7, 1])
def test_a_chunk_gives_what_its_steps_would_have_given_however_it_is_answered(part: int) -> None:
    with (
        FakeServer(part=part) as server,
        tidegate.connect(server.address) as client,
        client.sequence("toy") as sequence,
    ):
        sequence.step(ROWS[0])
        block = sequence.chunk(ROWS[1:101])
    assert len(block) == 100
    np.testing.assert_array_equal(block.output[:, 0], expected(ROWS[:101])[1:])
    assert [answer.step for answer in block] == list(range(1, 101))
    assert block[-1].step == 100


def test_a_stream_answers_every_row_in_order(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        answers = list(sequence.stream(iter(ROWS)))
    assert [answer.step for answer in answers] == list(range(200))
    np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(ROWS))


def test_a_stream_reads_only_as_many_rows_ahead_as_its_window_holds(client: tidegate.Client) -> None:
    taken = 0

    def rows() -> Iterator[list[int]]:
        nonlocal taken
        while True:
            taken += 1
            yield [taken, 0]

    with client.sequence("toy") as sequence:
        stream = sequence.stream(rows(), window=5)
        for answered in range(1, 20):
            next(stream)
            assert taken == answered + 4


def test_a_stream_with_a_window_of_one_answers_each_row_before_it_asks_for_the_next(client: tidegate.Client) -> None:
    events = []

    def rows() -> Iterator[list[int]]:
        for row in range(3):
            events.append(f"row {row}")
            yield [row, 0]

    with client.sequence("toy") as sequence:
        for answer in sequence.stream(rows(), window=1):
            events.append(f"answer {answer.step}")  # noqa: PERF401 - the rows write into the same list
    assert events == ["row 0", "answer 0", "row 1", "answer 1", "row 2", "answer 2"]


@pytest.mark.parametrize("bad", [[float("nan"), 0], [1, 2, 3]], ids=["refused by the server", "refused by the client"])
def test_a_refused_row_raises_at_its_turn_and_the_sequence_goes_on(client: tidegate.Client, bad: list[float]) -> None:
    rows = [*ROWS[:10].tolist(), bad, *ROWS[10:20].tolist()]
    answers = []
    with client.sequence("toy") as sequence:
        with pytest.raises(tidegate.BadInput) as caught:  # noqa: PT012 - what came before counts
            for answer in sequence.stream(rows):
                answers.append(answer)  # noqa: PERF402 - an extend would lose them
        answers += sequence.stream(rows[11:])
    assert caught.value.expected_step == 10
    assert [answer.step for answer in answers] == list(range(20))
    np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(ROWS[:20]))


def test_predict_answers_a_whole_sequence_and_says_which_version_did(client: tidegate.Client) -> None:
    prediction = client.predict("toy", ROWS)
    np.testing.assert_array_equal(prediction.output[:, 0], expected(ROWS))
    assert (prediction.model, prediction.version, len(prediction)) == ("toy", 1, 200)
    assert prediction.layer[0].forget.shape == (200, 3)


# Fleets.


@pytest.mark.parametrize("part", [10**9, 300])
def test_a_fleet_takes_a_step_of_each_of_its_sequences_in_one_message(part: int) -> None:
    rows = np.random.default_rng(1).normal(size=(3, 1000, 2)).astype(np.float32)
    with FakeServer(part=part) as server, tidegate.connect(server.address) as client:
        with client.fleet("toy", 1000) as fleet:
            blocks = [fleet.step(step) for step in rows]
            assert len(fleet) == len(fleet.ids) == 1000
        assert server.servicer.requests.count("fleet") == 3
    for member in (0, 1, 500, 999):
        np.testing.assert_array_equal([block.output[member, 0] for block in blocks], expected(rows[:, member]))
    assert blocks[2].layer[1].forget.shape == (1000, 3)
    assert set(blocks[2].steps) == {2}


def test_a_fleet_without_members_is_no_fleet(client: tidegate.Client) -> None:
    with pytest.raises(ValueError, match="at least one member"):
        client.fleet("toy", 0)


def test_inputs_for_the_wrong_number_of_members_are_refused(client: tidegate.Client) -> None:
    with client.fleet("toy", 3) as fleet, pytest.raises(tidegate.BadInput, match=r"\[2, 2\]; \[3, 2\] was expected"):
        fleet.step(np.ones((2, 2)))


# Refusals.


@pytest.mark.parametrize(
    ("values", "reason", "words"),
    [
        ([1], "WRONG_SHAPE", r"input 'x' has the shape \[1\]; \[2\] was expected"),
        ([[1, 2]], "WRONG_SHAPE", r"shape \[1, 2\]; \[2\]"),
        ([[1], [1, 2]], "WRONG_SHAPE", "is no array"),
        (["a", "b"], "WRONG_TYPE", "input 'x' is float32; an array of text came"),
        ([1j, 1], "WRONG_TYPE", "complex128"),
        ({"z": [1, 2]}, "WRONG_NAME", "the model has the inputs 'x'; 'z' came"),
        ([1, float("inf")], "NOT_FINITE", "NaN or Inf"),
        ([1, 1e300], "NOT_FINITE", "NaN or Inf"),
    ],
)
def test_a_refused_step_says_why_and_changes_nothing(
    client: tidegate.Client, values: object, reason: str, words: str
) -> None:
    with client.sequence("toy") as sequence:
        before = sequence.step([1, 1])
        with pytest.raises(tidegate.BadInput, match=words) as caught:
            sequence.step(values)
        after = sequence.step([1, 1])
    assert (caught.value.reason, caught.value.expected_step) == (reason, 1)
    np.testing.assert_array_equal([before.output[0], after.output[0]], expected(np.ones((2, 2))))


def test_integers_go_into_integer_inputs_and_fractions_do_not(client: tidegate.Client) -> None:
    with client.sequence("pair") as sequence:
        sequence.step({"a": [1], "token": np.uint8(3)})
        with pytest.raises(tidegate.BadInput, match="input 'token' is int64; an array of float64"):
            sequence.step({"a": [1], "token": 3.5})
        with pytest.raises(tidegate.BadInput, match="an array for each name"):
            sequence.step([1, 2])


def test_an_empty_chunk_is_refused(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence, pytest.raises(tidegate.BadInput, match="at least one step"):
        sequence.chunk(np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [("nope", tidegate.UnknownModel, "no model 'nope'"), ("broken", tidegate.ModelNotReady, "bidirectional")],
)
def test_a_model_that_cannot_be_opened_says_why(
    client: tidegate.Client, name: str, kind: type[tidegate.Refused], words: str
) -> None:
    for open_it in (client.sequence, lambda model: client.fleet(model, 3), lambda model: client.predict(model, ROWS)):
        with pytest.raises(kind, match=words):
            open_it(name)
    with client.sequence("toy") as sequence:
        assert sequence.step([1, 1]).step == 0


def test_a_refused_call_is_told_by_the_reason_in_its_status(client: tidegate.Client) -> None:
    with pytest.raises(tidegate.UnknownModel) as caught:
        client.describe("nope")
    assert (caught.value.reason, caught.value.message) == ("UNKNOWN_MODEL", "there is no model 'nope'")


def test_a_refusal_travels_between_processes_as_it_is() -> None:
    error = pickle.loads(pickle.dumps(tidegate.BadInput("WRONG_SHAPE", "no", 7)))  # noqa: S301 - our own bytes
    assert (type(error), error.reason, error.expected_step) == (tidegate.BadInput, "WRONG_SHAPE", 7)


def test_every_reason_of_the_contract_has_a_name_and_a_later_one_stays_a_number() -> None:
    assert reason_name(error_pb2.REASON_NOT_FINITE) == "NOT_FINITE"
    assert reason_name(999) == "999"


# Messages as large as the server takes.


@pytest.mark.parametrize("timeout", [None, 120.0])
def test_a_chunk_larger_than_a_message_goes_in_several(timeout: float | None) -> None:
    with FakeServer(max_message=400) as server, tidegate.connect(server.address, timeout=timeout) as client:
        with client.sequence("toy") as sequence:
            blocks = [sequence.chunk(ROWS[:130]), sequence.chunk(ROWS[130:])]
        assert server.servicer.requests.count("steps") > 200 * 8 / 400
    np.testing.assert_array_equal(np.concatenate([b.output[:, 0] for b in blocks]), expected(ROWS))
    assert blocks[1].steps.tolist() == list(range(130, 200))
    assert blocks[0].layer[1].forget.shape == (130, 3)


def test_a_fleet_larger_than_a_message_goes_in_several() -> None:
    rows = np.random.default_rng(1).normal(size=(2, 100, 2)).astype(np.float32)
    with FakeServer(max_message=400) as server, tidegate.connect(server.address) as client:
        with client.fleet("toy", 100) as fleet:
            blocks = [fleet.step(step) for step in rows]
        assert server.servicer.requests.count("fleet") > 2 * 100 * 20 / 400
    for member in (0, 50, 99):
        np.testing.assert_array_equal([block.output[member, 0] for block in blocks], expected(rows[:, member]))


def test_a_number_that_would_be_refused_in_a_later_message_refuses_the_whole() -> None:
    rows = ROWS[:100].copy()
    rows[90, 1] = np.nan
    with FakeServer(max_message=400) as server, tidegate.connect(server.address) as client:
        with client.sequence("toy") as sequence, pytest.raises(tidegate.BadInput, match=r"'x' .* in row 90") as caught:
            sequence.chunk(rows)
        with client.fleet("toy", 100) as fleet, pytest.raises(tidegate.BadInput, match="NOT_FINITE"):
            fleet.step(rows)
    assert (caught.value.reason, caught.value.expected_step, sequence.next_step) == ("NOT_FINITE", 0, 0)
    assert not fleet.next_steps.any()


def test_a_row_larger_than_a_message_is_refused_before_it_is_sent() -> None:
    with FakeServer(max_message=50) as server, tidegate.connect(server.address) as client:
        with client.sequence("toy") as sequence, client.fleet("toy", 2) as fleet:
            for attempt in (lambda: sequence.step([1, 1]), lambda: sequence.chunk(ROWS), lambda: fleet.step(ROWS[:2])):
                with pytest.raises(tidegate.BadInput, match=r"one row takes \d+ bytes; this server takes 50") as caught:
                    attempt()
                assert caught.value.reason == "TOO_LARGE"
        assert set(server.servicer.requests) <= {"open", "close"}


def test_a_server_that_does_not_say_how_much_it_takes_gets_as_much_as_grpc_allows(
    client: tidegate.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_books, "_AHEAD", 10**6)  # as many in a part as a message takes
    with client.sequence("toy") as sequence:
        promise, requests = sequence._books.send_chunk(np.zeros((10**6, 2), np.float32))
    assert [request.ByteSize() < 4 * 2**20 for request in requests] == [True, True]
    assert sum(request.steps.inputs[0].shape[0] for request in requests) == promise.count == 10**6


def test_a_whole_sequence_that_is_too_large_says_what_to_do_instead(client: tidegate.Client) -> None:
    with pytest.raises(tidegate.BadInput, match=r"sequence\(...\).chunk.*TOO_LARGE"):
        client.predict("toy", np.zeros((10**6, 2)))


# Losses and limits.


def test_a_server_that_is_not_there_is_named() -> None:
    with tidegate.connect("127.0.0.1:1") as client:
        for call in (client.models, lambda: client.sequence("toy")):
            with pytest.raises(tidegate.ConnectionLost, match=r"no Tidegate server answers at 127\.0\.0\.1:1"):
                call()


def test_a_server_that_vanishes_ends_its_sequences(server: FakeServer) -> None:
    with tidegate.connect(server.address) as client, client.sequence("toy") as sequence:
        sequence.step([1, 1])
        server.vanish()
        for _ in range(2):
            with pytest.raises(tidegate.ConnectionLost):
                sequence.step([1, 1])
        with pytest.raises(tidegate.ConnectionLost):
            client.sequence("toy")


def test_a_client_finds_a_server_that_came_back(server: FakeServer) -> None:
    with tidegate.connect(server.address) as client, client.sequence("toy") as before:
        before.step([1, 1])
        server.vanish()
        with FakeServer(port=server.port):
            with eventually(lambda: client.sequence("toy")) as after:
                assert after.step([1, 1]).step == 0
            with pytest.raises(tidegate.ConnectionLost):
                before.step([1, 1])


def eventually(attempt: Callable[[], tidegate.Sequence]) -> tidegate.Sequence:
    """What the attempt gives once a server answers, within two minutes."""
    end = time.monotonic() + 120
    while True:
        try:
            return attempt()
        except tidegate.ConnectionLost:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_a_server_that_vanishes_wakes_everybody_who_waits(server: FakeServer) -> None:
    server.behaviour.silent = True
    with tidegate.connect(server.address) as client, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.sequence("toy").step, [1, 1]) for _ in range(3)]
        time.sleep(0.1)
        server.vanish()
        for future in waiting:
            with pytest.raises(tidegate.ConnectionLost):
                future.result(120)


def test_a_wait_has_a_limit_and_a_late_answer_is_not_taken_for_the_next(server: FakeServer) -> None:
    with tidegate.connect(server.address) as client, client.sequence("toy") as sequence:
        server.behaviour.gate.clear()
        with pytest.raises(tidegate.TimedOut):
            sequence.step([1, 1], timeout=0.1)
        server.behaviour.gate.set()
        answer = sequence.step([2, 2])
    assert answer.step == 1
    assert answer.output[0] == expected(np.array([[1, 1], [2, 2]]))[1]


def test_the_limit_of_the_client_holds_where_a_call_has_none(server: FakeServer) -> None:
    server.behaviour.silent = True
    with tidegate.connect(server.address, timeout=0.1) as client, client.sequence("toy", timeout=120) as sequence:
        with pytest.raises(TimeoutError):
            sequence.step([1, 1])
        with pytest.raises(tidegate.TimedOut):
            list(sequence.stream([[1, 1]]))


def test_nobody_who_waits_reads_the_stream_of_grpc_where_an_interrupt_would_leave_it_half_read(
    server: FakeServer,
) -> None:
    with (
        tidegate.connect(server.address, options=[("grpc.enable_http_proxy", 0)]) as client,
        client.sequence("toy") as sequence,
    ):
        assert [thread for thread in threading.enumerate() if thread.name.startswith("tidegate reader")]
        readers = []
        take = sequence._connection.talk.receive
        sequence._connection.talk.receive = lambda message: readers.append(threading.current_thread()) or take(message)
        sequence.step([1, 1])
    assert readers
    assert threading.current_thread() not in readers


def test_threads_use_sequences_of_one_client_at_once(server: FakeServer) -> None:
    def run(client: tidegate.Client, seed: int) -> bool:
        rows = np.random.default_rng(seed).normal(size=(150, 2)).astype(np.float32)
        limit = 120.0 if seed % 2 else None
        with client.sequence("toy") as sequence:
            answers = [sequence.step(row, timeout=limit).output[0] for row in rows[:50]]
            answers += [answer.output[0] for answer in sequence.stream(rows[50:100], window=8)]
            answers += sequence.chunk(rows[100:]).output[:, 0].tolist()
        return np.array_equal(answers, expected(rows))

    with tidegate.connect(server.address) as client, ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda seed: run(client, seed), range(12)))
        assert server.servicer.streams == 1


def test_answers_are_handed_out_before_the_error_of_the_rows_is_raised(client: tidegate.Client) -> None:
    def rows() -> Iterator[np.ndarray]:
        yield from ROWS[:40]
        raise OSError("the sensor is unplugged")

    with client.sequence("toy") as sequence:
        stream = sequence.stream(rows())
        np.testing.assert_array_equal([next(stream).output[0] for _ in range(40)], expected(ROWS[:40]))
        with pytest.raises(OSError, match="unplugged"):
            next(stream)
        assert sequence.next_step == 40


def test_a_sequence_can_be_closed_again_and_by_many_at_once(client: tidegate.Client) -> None:
    neighbour = client.sequence("toy")
    for _ in range(20):
        with client.sequence("toy") as sequence:
            sequence.step([1, 1])
        sequence.close()
    with ThreadPoolExecutor(4) as pool:
        sequence = client.sequence("toy")
        for closed in [pool.submit(sequence.close) for _ in range(4)]:
            closed.result(120)
    sequence.close()
    assert neighbour.step([1, 0]).output == [6]


def test_a_closed_sequence_takes_no_more_steps(client: tidegate.Client) -> None:
    sequence = client.sequence("toy")
    sequence.step([1, 1])
    sequence.close()
    with pytest.raises(tidegate.SequenceEnded):
        sequence.step([1, 1])


@pytest.mark.parametrize("timeout", [None, 120.0])
def test_a_client_with_nothing_open_ends_its_stream_in_peace(server: FakeServer, timeout: float | None) -> None:
    with tidegate.connect(server.address, timeout=timeout) as client, client.sequence("toy") as sequence:
        sequence.step([1, 1])
    assert server.servicer.ended_in_peace == 1


def test_leaving_a_client_ends_what_is_open_on_it(server: FakeServer) -> None:
    with tidegate.connect(server.address) as client:
        sequence = client.sequence("toy")
    with pytest.raises(tidegate.ConnectionLost, match="closed"):
        sequence.step([1, 1])


def test_a_model_tells_its_inputs_outputs_layers_and_proof(client: tidegate.Client) -> None:
    models = client.models()
    assert [(model.name, model.status) for model in models] == [
        ("broken", "refused"),
        ("pair", "ready"),
        ("toy", "ready"),
    ]
    toy = client.describe("toy")
    assert toy == models[2]
    assert toy.inputs[0].features == ("left", "right")
    assert (toy.inputs[0].dtype, toy.inputs[0].shape) == (np.float32, (2,))
    assert [layer.kind for layer in toy.layers] == ["LSTM", "LSTM"]
    assert toy.proof.steps == 64


def test_another_service_at_the_address_does_not_speak_the_contract() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with tidegate.connect(f"127.0.0.1:{port}") as client, pytest.raises(tidegate.ProtocolError, match="not speak"):
            client.models()
    finally:
        server.stop(None).wait()


def test_what_is_not_traced_is_missing_from_a_mapping_as_anything_else_is(client: tidegate.Client) -> None:
    with client.sequence("toy", trace=tidegate.Trace(layers=[1])) as sequence:
        layers = sequence.step(ROWS[0]).layer
    assert 5 not in layers
    assert layers.get(5) is None
    with pytest.raises(KeyError) as missing:
        layers[5]
    assert str(missing.value) == "layer 5 is not in this trace; it shows the layers [1]"


def test_answers_are_cut_like_a_list(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        answers = sequence.chunk(ROWS[:5])
    assert [answer.step for answer in answers[1:4:2]] == [1, 3]
    assert [answer.step for answer in answers[-2:]] == [3, 4]


@pytest.mark.parametrize("members", [[0.7, 1.2], [True, False], ["a", "b"]])
def test_members_that_are_no_whole_numbers_are_refused(client: tidegate.Client, members: list[object]) -> None:
    with client.fleet("toy", 2) as fleet:
        with pytest.raises(tidegate.BadInput, match="members are named by whole numbers"):
            fleet.step(ROWS[:2], members=members)
        assert list(fleet.next_steps) == [0, 0]
