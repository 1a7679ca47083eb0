"""The file of tokens: JSON that only its owner can read, replaced as a whole, changed by one process at a time."""

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server.access import token
from server.access.token import BadToken, Token
from tidegate.files import replacing, whole

_MOST = 2**24  # bytes


class TokenFile:
    """At one path. All calls raise OSError, in a sentence that says what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Token]:
        """All tokens, by name. Raises OSError: there is no such file, or something in it is wrong; then none count."""
        try:
            with whole(self.path) as file:
                self._check_rights(os.fstat(file.fileno()))
                data = file.read(_MOST + 1)
        except FileNotFoundError:
            raise OSError(f"there is no file of tokens {self.path}: `python -m server token add` makes it") from None
        except OSError as error:
            raise OSError(f"the file of tokens {self.path} cannot be read: {error.strerror or error}") from None
        return self._parsed(data)

    @contextmanager
    def change(self) -> Iterator[dict[str, Token]]:
        """The tokens, to be changed in the block: what it leaves replaces the file, which need not exist yet."""
        with self._lock():
            tokens = self.read() if self.path.exists() else {}
            yield tokens
            self._write(tokens)

    def _parsed(self, data: bytes) -> dict[str, Token]:
        try:
            if len(data) > _MOST:
                raise ValueError("it is too large")  # noqa: TRY301 # said as all that is wrong with it
            given = json.loads(data)
            entries = given["tokens"] if isinstance(given, dict) and given.keys() == {"tokens"} else None
            if not isinstance(entries, dict):
                raise ValueError('expected {"tokens": {NAME: {...}}}')  # noqa: TRY301, TRY004
            tokens = {name: token.read(name, entry) for name, entry in entries.items()}
            _check_unique(tokens)
        except (ValueError, RecursionError) as error:
            raise OSError(f"the file of tokens {self.path} cannot be used: {error}") from None
        return tokens

    def _check_rights(self, found: os.stat_result) -> None:
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(f"the file of tokens {self.path} can be written by other users: chmod 600 {self.path}")

    def _write(self, tokens: Mapping[str, Token]) -> None:
        _check_unique(tokens)
        entries = {name: token.written(tokens[name]) for name in sorted(tokens)}
        with replacing(self.path) as file:
            file.write(json.dumps({"tokens": entries}, indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if not self.path.parent.is_dir():
            raise OSError(f"there is no folder {self.path.parent} for the file of tokens: make it")
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OSError(f"the file of tokens {self.path} cannot be changed: {lock}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _check_unique(tokens: Mapping[str, Token]) -> None:
    """No secret and no certificate may stand for two tokens."""
    seen: dict[str, str] = {}
    for name, one in tokens.items():
        for shown in (*one.digests, *([f"certificate {one.certificate}"] if one.certificate else [])):
            if shown in seen:
                raise BadToken(f"tokens '{seen[shown]}' and '{name}' are shown by the same secret or certificate")
            seen[shown] = name
