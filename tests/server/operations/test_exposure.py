from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from server.operations.exposure import check, refused
from server.settings import Settings

NETWORK = "0.0.0.0"  # noqa: S104
TLS = {"tls_cert": "c", "tls_key": "k"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8", "unix:/tmp/a"])
def test_on_this_machine_neither_tls_nor_anything_else_is_needed(host: str) -> None:
    check(Settings(host=host))


@pytest.mark.parametrize("host", [NETWORK, "::", "192.0.2.1"])
def test_an_address_of_a_network_is_refused_without_tls_and_without_asking_who_connects(host: str) -> None:
    with pytest.raises(OSError, match="all would be sent in clear: give --tls-cert and --tls-key, or --insecure"):
        check(Settings(host=host))
    with pytest.raises(OSError, match="everybody could use the server: give --tokens, or --tls-client-ca"):
        check(Settings(host=host, **TLS))
    check(Settings(host=host, **TLS, tls_client_ca="a"))
    check(Settings(host=host, **TLS, tokens="a"))
    check(Settings(host=host, insecure=True))
    check(Settings(host=host, insecure=True, **TLS))


def test_settings_of_tls_that_lack_another_are_refused_everywhere() -> None:
    whole = Settings(**TLS, tls_client_ca="a")
    check(whole)
    for lacking in ({"tls_cert": "none"}, {"tls_key": "none"}, {"tls_cert": "none", "tls_key": "none"}):
        with pytest.raises(OSError, match="--tls-cert and --tls-key"):
            check(replace(whole, **lacking))


def test_a_name_that_is_no_address_is_said_to_be_so() -> None:
    with pytest.raises(OSError, match=r"cannot listen on nowhere\.invalid: it is no address of this machine"):
        check(Settings(host="nowhere.invalid"))


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.EADDRINUSE, "another program listens there already"), (errno.EACCES, "Permission denied"), (-2, "unknown")],
)
def test_an_address_that_cannot_be_listened_on_is_refused_with_the_reason(number: int, why: str) -> None:
    assert str(refused("1.2.3.4:80", OSError(number, "unknown"))) == f"cannot listen on 1.2.3.4:80: {why}"
