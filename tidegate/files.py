"""Files that are read whole, and files that only their owner can read, moved to their place once they are whole."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

_SHOWN = 32  # characters of a file's name in that of the one beside it: a name may have 255 bytes


def whole(path: Path) -> BinaryIO:
    """Opens a file to read. Raises OSError: also where it is a pipe or a device, which may keep a reader waiting."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no file, but a folder, a pipe or a device", str(path))
    return os.fdopen(number, "rb")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end of the block; after an error `path` is as it was.

    Raises OSError: also where there is something else than a file: a folder, a device, or a link, such as /dev/stdout.
    """
    place = Path(path)
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(place.lstat().st_mode):
            raise OSError(f"{place} is a link, a folder or a device: name the file itself")
    try:
        number, beside = mkstemp(prefix=f".{place.name[:_SHOWN]}.", suffix=".part", dir=place.parent)
    except OSError as error:
        error.filename = str(place)
        raise
    os.close(number)
    try:
        with Path(beside).open("wb") as file:
            yield file
        Path(beside).replace(place)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if type(error) is OSError and error.errno and error.filename in (None, beside):  # the disk is full, say
            error.filename = str(place)
        raise
