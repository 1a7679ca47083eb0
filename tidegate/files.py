"""Files that only their owner can read, written beside their place and moved there once they are whole."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end of the block; after an error `path` is as it was.

    Raises OSError: also where there is something else than a file: a folder, a device, or a link, such as /dev/stdout.
    """
    place = Path(path)
    if os.path.lexists(place) and not stat.S_ISREG(place.lstat().st_mode):
        raise OSError(f"{place} is a link, a folder or a device: name the file itself")
    number, beside = mkstemp(prefix=f"{place.name}.", suffix=".part", dir=place.parent)
    os.close(number)
    try:
        with Path(beside).open("wb") as file:
            yield file
        Path(beside).replace(place)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
