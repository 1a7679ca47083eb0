"""A gzipped file as text, with the hash that tells runs on other data apart."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError

FOLDER = Path(__file__).parents[1] / "data"
WEATHER = FOLDER / "beijing_hourly.csv.gz"


@dataclass(frozen=True)
class DataFile:
    """A file that was read whole."""

    name: str
    text: str
    sha256: str

    @property
    def data(self) -> dict[str, str]:
        """As a task says where its data is from."""
        return {"source": self.name, "sha256": self.sha256}


def read(path: Path) -> DataFile:
    """Read a gzipped ASCII file.

    Raises:
        DataError: it is missing or not one.
    """
    try:
        content = path.read_bytes()
        text = gzip.decompress(content).decode("ascii")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}") from error
    return DataFile(path.name, text, hashlib.sha256(content).hexdigest())
