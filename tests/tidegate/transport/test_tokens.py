"""Tokens that a client shows: from where they come, to whom they go, and what follows when one is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, Store, expected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "tg_secret"
SOON = tidegate.Resuming(longest_wait=0.02)
VARIABLES = ("TIDEGATE_TOKEN", "TIDEGATE_TOKEN_FILE", "TIDEGATE_CA", "TIDEGATE_CERT", "TIDEGATE_KEY")


class Guard(grpc.ServerInterceptor):
    """Lets in who shows one of the tokens, and keeps what was shown."""

    def __init__(self, *tokens: str) -> None:
        self.known = {f"Bearer {token}" for token in tokens}
        self.shown: list[str | None] = []
        self.refused: tuple[int, Callable[[], None]] = (0, lambda: None)  # after so many more, that is called

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:  # noqa: ANN401
        shown = dict(details.invocation_metadata).get("authorization")
        self.shown.append(shown)
        if shown in self.known:
            return continuation(details)

        def refuse(_: object, context: grpc.ServicerContext) -> None:
            left, call = self.refused
            self.refused = left - 1, call
            if left == 1:
                call()
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "this token is not known")

        if details.method.endswith("/Stream"):
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


def file_with(folder: Path, token: str) -> Path:
    file = folder / "token"
    file.write_text(f"{token}\n")
    return file


def test_a_token_goes_with_every_call_wherever_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(SECRET)
    with FakeServer(guard=guard) as server:

        def all_calls(**given: Any) -> None:  # noqa: ANN401
            with tidegate.connect(server.address, **given) as client:
                client.models()
                with client.sequence("toy") as sequence:
                    sequence.step([1, 2])

        all_calls(token=SECRET)
        all_calls(token_file=file_with(tmp_path, SECRET))
        monkeypatch.setenv("TIDEGATE_TOKEN", SECRET)
        monkeypatch.setenv("TIDEGATE_TOKEN_FILE", "")  # as good as not set
        all_calls()
        monkeypatch.setenv("TIDEGATE_TOKEN", "another")
        monkeypatch.setenv("TIDEGATE_TOKEN_FILE", str(file_with(tmp_path, SECRET)))
        all_calls()
    assert set(guard.shown) == {f"Bearer {SECRET}"}


async def test_asyncio_shows_it_too() -> None:
    with FakeServer(guard=Guard(SECRET)) as server:
        async with tidegate.AsyncClient(server.address, token=SECRET) as client, client.sequence("toy") as sequence:
            assert (await sequence.step([1, 2])).step == 0
            assert await client.models()


@pytest.mark.parametrize("given", [{}, {"token": "another"}])
def test_a_refused_token_is_final_and_said_in_a_sentence(given: dict[str, str]) -> None:
    guard = Guard(SECRET)
    with FakeServer(guard=guard) as server, tidegate.connect(server.address, resume_within=None, **given) as client:
        for call in (client.models, lambda: client.sequence("toy")):
            with pytest.raises(tidegate.AccessDenied, match="this token is not known") as caught:
                call()
            assert caught.value.reason == "UNAUTHENTICATED"
        assert len(guard.shown) == 2


def test_a_token_that_is_changed_on_both_sides_loses_no_sequence(tmp_path: Path) -> None:
    guard, file = Guard(SECRET), file_with(tmp_path, SECRET)
    with (
        FakeServer(guard=guard, store=Store()) as server,
        tidegate.connect(server.address, token_file=file, resuming=SOON, timeout=120) as client,
        client.sequence("toy") as sequence,
    ):
        rows = np.ones((3, 2), np.float32)
        answers = [sequence.step(rows[0])]
        file.write_text("")  # it is being written

        def renew() -> None:
            guard.known = {"Bearer new"}
            file.write_text("new")

        guard.known, guard.refused = set(), (3, renew)
        server.cut()
        answers += [sequence.step(row) for row in rows[1:]]
        np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(rows))
        assert guard.shown[-4:] == [*[f"Bearer {SECRET}"] * 3, "Bearer new"]


def test_a_token_that_stays_refused_is_said_when_the_time_is_over() -> None:
    guard = Guard(SECRET)
    given: dict[str, Any] = {"token": SECRET, "resuming": SOON, "resume_within": 0.2}
    with FakeServer(guard=guard, store=Store()) as server, tidegate.connect(server.address, **given) as client:
        sequence = client.sequence("toy")
        sequence.step([1, 2])
        guard.known = set()
        server.cut()
        with pytest.raises(tidegate.SequenceLost, match=r"not resumed within 0\.2 s: .* this token is not known"):
            sequence.step([3, 4])
        guard.known = {f"Bearer {SECRET}"}
        with client.resume(sequence.id, sequence.resume_token, answered=1) as again:  # the server has it still
            assert again.id == sequence.id


@pytest.mark.parametrize(
    "address", ["192.0.2.1:50051", "elsewhere:50051", "[2001:db8::1]:1", "dns:///elsewhere:1", "ipv4:192.0.2.1:1"]
)
def test_a_token_goes_to_no_other_machine_unencrypted(address: str) -> None:
    for connect in (tidegate.connect, tidegate.AsyncClient):
        with pytest.raises(ValueError, match=re.escape(f"the token would go to {address} unencrypted")) as caught:
            connect(address, token=SECRET)
        assert SECRET not in str(caught.value)
        connect(address, token=SECRET, insecure=True)
        connect(f"https://{address}" if "///" not in address and "ipv4" not in address else "https://a", token=SECRET)


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/tmp/x"])
def test_to_this_machine_it_goes_unless_a_proxy_is_between(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tidegate.connect(address, token=SECRET).close()
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.delenv("no_proxy", raising=False)
    if not address.startswith("unix"):
        with pytest.raises(ValueError, match="unencrypted"):
            tidegate.connect(address, token=SECRET)
    tidegate.connect(address, token=SECRET, options=[("grpc.enable_http_proxy", 0)]).close()


@pytest.mark.parametrize("token", ["", "two words", "two\nlines", "ü", "a\0"])
def test_what_can_be_no_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValueError, match="token= holds no token: expected one line of visible characters") as caught:
        tidegate.connect("localhost:1", token=token)
    assert not token or token not in str(caught.value)
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(ValueError, match=f"{file} holds no token"):
        tidegate.connect("localhost:1", token_file=file)


def test_files_that_are_not_there_and_settings_that_contradict_each_other_are_said_at_once(tmp_path: Path) -> None:
    for name in ("ca", "token_file"):
        with pytest.raises(FileNotFoundError):
            tidegate.connect("localhost:1", **{name: tmp_path / "missing"})
    with pytest.raises(ValueError, match="cert= and key= belong together"):
        tidegate.connect("localhost:1", cert=tmp_path)
    with pytest.raises(ValueError, match="a token was given twice"):
        tidegate.connect("localhost:1", token=SECRET, token_file=tmp_path)
    with pytest.raises(ValueError, match="credentials= are instead of ca=, cert= and key="):
        tidegate.connect("localhost:1", ca=tmp_path, credentials=grpc.local_channel_credentials())
    (tmp_path / "ca").write_text("nothing")
    with pytest.raises(
        ValueError, match="ca cannot be used: expected certificates and a key without a password, in PEM"
    ):
        tidegate.connect("localhost:1", ca=tmp_path / "ca")


def test_nothing_shows_a_token() -> None:
    with tidegate.connect("localhost:1", token=SECRET, timeout=1) as client:
        assert SECRET not in repr(vars(client))
        assert SECRET not in str(client._endpoint)
