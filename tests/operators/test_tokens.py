"""Operators and their tokens: who may observe lists everybody's sequences, and who may administer ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import tidegate
from server.access import token_secret
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import Right
from tests.running_server import RunningServer
from tidegate.admin import chosen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAY = {
    "ann": (Right.PREDICT, ("*",)),
    "watcher": (Right.OBSERVE, ("*",)),
    "keeper": (Right.ADMINISTER, ("*",)),
    "stranger": (Right.ADMINISTER, ("gru*",)),
}


def test_what_an_operator_may_do_is_what_its_token_says(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path
) -> None:
    secrets = {name: token_secret.make() for name in MAY}
    file = TokenFile(tmp_path / "tokens.json")
    with file.change() as tokens:
        for name, (right, models) in MAY.items():
            tokens[name] = Token(name, frozenset({right}), models, (token_secret.digest(secrets[name]),))
    server = start(lstm_only, "--tokens", str(file.path)).ready()
    ann, watcher, keeper, stranger = (
        tidegate.connect(server.address, token=secrets[name], insecure=True) for name in MAY
    )
    with ann, watcher, keeper, stranger:
        sequence = ann.sequence("lstm", trace=False)
        sequence.step(np.zeros(3, np.float32))
        for client in (watcher, keeper):
            (one,) = client.admin.sequences()
            assert (one.id, one.token, one.address) == (sequence.id, "ann", "")
            assert not any(value in repr(one) for value in secrets.values())
        assert not list(stranger.admin.sequences())
        assert not list(stranger.admin.end(chosen([sequence.id])))
        with pytest.raises(tidegate.Refused, match="may not observe"):
            list(ann.admin.sequences())
        with pytest.raises(tidegate.Refused, match="may not administer"):
            list(watcher.admin.end(chosen([sequence.id])))
        with pytest.raises(tidegate.Refused, match="your rights are for some"):
            stranger.admin.back_up(tmp_path / "backup")
        sequence.step(np.zeros(3, np.float32))
        assert list(keeper.admin.end(chosen(owner="ann"))) == [sequence.id]
