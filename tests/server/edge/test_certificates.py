from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from server.edge.certificates import Certificates, Files
from tests.security.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_new_files_are_taken_when_they_are_looked_at(authority: Authority) -> None:
    certificates = Certificates(authority.files("a.example"))
    before = certificates.current
    certificates.look()
    assert certificates.current is before
    authority.issue("server", "b.example")
    assert certificates.current is before
    certificates.look()
    assert certificates.current.names == ("b.example",)
    assert certificates.current.context is not before.context
    assert certificates.sample().failures == 0
    assert certificates.sample().expires > 32e9, "in the year 3000"


def _other_key(authority: Authority, files: Files) -> None:
    _, key = authority.issue("other")
    files.key.write_bytes(key.read_bytes())


def _password(_: Authority, files: Files) -> None:
    plain = files.key.rename(files.key.with_suffix(".plain"))
    command = ["openssl", "pkey", "-in", plain, "-out", files.key, "-aes256", "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)


def _pipe(_: Authority, files: Files) -> None:
    files.cert.unlink()
    os.mkfifo(files.cert)  # whoever reads it waits for a writer


FAULTS: dict[str, Callable[[Authority, Files], object]] = {
    "they are not in PEM form": lambda _, files: files.cert.write_text("nothing"),
    r"server\.key cannot be read \(No such file or directory\)": lambda _, files: files.key.unlink(),
    "it is no file, but a folder, a pipe or a device": _pipe,
    "the key is not that of the certificate": _other_key,
    "certificate has expired": lambda authority, _: authority.issue("server", expired=True),
    r"ca\.pem holds no certificate in PEM form": lambda authority, _: authority.file.write_text("nobody"),
    "has a password; expected one without": _password,
}


@pytest.mark.parametrize(("why", "spoil"), FAULTS.items())
def test_files_that_cannot_be_used_keep_the_old_ones_and_are_said_once(
    authority: Authority, why: str, spoil: Callable[[Authority, Files], object], caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.files("a.example", ask_clients=True)
    certificates = Certificates(files)
    before = certificates.current
    spoil(authority, files)
    with caplog.at_level(logging.ERROR):
        certificates.look()
        assert not caplog.messages, "a certificate may be written before its key"
        for _ in range(3):
            certificates.look()
    assert certificates.current is before
    assert certificates.sample().failures == 1
    [message] = caplog.messages
    assert re.search(why, message), message
    assert message.endswith("still served with the certificate of a.example, which expires on 3000-01-01 00:00 UTC")
    authority.file.write_bytes(authority.pem)
    authority.issue("server", "c.example")
    certificates.look()
    assert certificates.current.names == ("c.example",)


@pytest.mark.parametrize(("why", "spoil"), FAULTS.items())
def test_a_server_does_not_start_with_them(
    authority: Authority, why: str, spoil: Callable[[Authority, Files], object]
) -> None:
    files = authority.files(ask_clients=True)
    spoil(authority, files)
    with pytest.raises(OSError, match=why):
        Certificates(files)
