"""The token that a client shows with each call, read again from its file: it can be changed while the client runs."""

import re
from contextlib import suppress
from pathlib import Path

_FITS = re.compile(r"[!-~]+")  # in a header


class Token:
    """`text`, or what a file holds. Never shown by `repr`. Raises ValueError or OSError: there is none."""

    def __init__(self, text: str | None, file: Path | None) -> None:
        self._file = file
        self._text = _fitting(text, "token=") if text is not None or file is None else _held(file)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with a call. While the file holds none, as when it is being written, it is the last one."""
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._text = _held(self._file)
        return (("authorization", f"Bearer {self._text}"),)


def _held(file: Path) -> str:
    return _fitting(file.read_text(encoding="ascii", errors="replace").strip(), str(file))


def _fitting(text: str | None, place: str) -> str:
    if text is None or not _FITS.fullmatch(text):
        raise ValueError(f"{place} holds no token: expected one line of visible characters")
    return text
