from __future__ import annotations

import pytest

from server.access.authority import Authority, Credentials
from server.caller import EVERY_RIGHT, Right
from server.edge.callers import anybody, caller_of


class Context:
    def __init__(self, peer: str, verified: dict[str, list[bytes]] | None = None) -> None:
        self._peer = peer
        self._verified = verified or {}

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._verified


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:50123", "ipv4:10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50123", "ipv6:2001:db8:1:2::"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "ipv6:fe80::"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:50123", "ipv4:10.0.0.1"),
        ("unix:/run/tidegate.sock", "unix:/run/tidegate.sock"),
        ("unix:", "unix:"),
    ],
)
def test_a_caller_is_a_host_without_its_port_and_of_ipv6_the_part_that_is_one_customers(
    peer: str, address: str
) -> None:
    assert caller_of(Context(peer), Authority()).address == anybody(Context(peer)).address == address


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("unix:", True),
        ("ipv4:127.0.0.9:50123", True),
        ("ipv6:%5B::1%5D:50123", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:50123", True),
        ("ipv4:10.0.0.1:50123", False),
        ("ipv6:%5B::2%5D:50123", False),
        ("unknown", False),
    ],
)
def test_without_tokens_everybody_may_predict_and_who_is_on_this_machine_may_do_everything(
    peer: str, here: bool
) -> None:
    assert caller_of(Context(peer), Authority()).rights == (EVERY_RIGHT if here else {Right.PREDICT})


@pytest.mark.parametrize(
    ("verified", "subject"),
    [
        ({}, ""),
        ({"x509_common_name": [b"sensor-7"], "x509_subject_alternative_name": [b"spiffe://a/b"]}, "sensor-7"),
        ({"x509_subject_alternative_name": [b"sensor-7"]}, ""),
    ],
)
def test_a_certificate_names_its_client_by_its_common_name_and_by_no_other_name(
    verified: dict[str, list[bytes]], subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Credentials] = []
    authority = Authority()
    monkeypatch.setattr(authority, "caller", shown.append)
    caller_of(Context("ipv4:10.0.0.1:1", verified), authority)
    assert [credentials.subject for credentials in shown] == [subject]
