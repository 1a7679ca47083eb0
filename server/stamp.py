"""What tells whether a file has changed, without reading it."""

import os
from pathlib import Path

Stamp = tuple[int, int, int]

GONE: Stamp = (0, 0, 0)  # of a file that is not there, or of which nothing can be known


def stamp_of(file: Path | os.DirEntry[str]) -> Stamp:
    """The time, size and number of a file, or of the one that it links to."""
    try:
        found = file.stat()
    except OSError:
        return GONE
    return found.st_mtime_ns, found.st_size, found.st_ino
