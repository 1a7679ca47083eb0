"""Whose a sequence is: its id is of one account and one model, and no message of any protocol can name it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.edge.oip.sequences import Key, Sequences
from server.runtime.turns import AT_ONCE
from server.settings import Settings
from tidegate.v1 import sequence_pb2


@pytest.fixture
def sequences() -> Sequences:
    return Sequences(cast("Any", SimpleNamespace(settings=Settings(), turns=AT_ONCE)))


def test_no_two_accounts_models_or_kinds_of_id_share_a_sequence(sequences: Sequences) -> None:
    keys = [
        Key("token:press", "weather", 7),
        Key("token:other", "weather", 7),
        Key("token:press", "weathers", 7),
        Key("token:press", "weather", "7"),
        Key("token:press", "weather", 8),
    ]
    made = [sequences._identity(key) for key in keys]
    assert len({one.id for one in made}) == len({one.token for one in made}) == len(keys)
    again = sequences._identity(keys[0])
    assert (again.id, again.token, again.fence > made[-1].fence) == (made[0].id, made[0].token, True)


def test_no_message_can_hold_what_resumes_it_so_that_the_native_api_cannot(sequences: Sequences) -> None:
    token = sequences._identity(Key("ipv4:10.0.0.1", "weather", 7)).token
    with pytest.raises(UnicodeEncodeError):
        sequence_pb2.Resume(resume_token=token)


def test_an_id_is_told_in_logs_without_what_would_break_a_line(sequences: Sequences) -> None:
    told = sequences._identity(Key("a", "m", "pump 4\n\x1b[31m" + "x" * 100)).id
    assert re.fullmatch("oip-[0-9a-f]{32}-pump_4___31mx{52}", told)
    assert len(told) < 128
