"""Follows many files at once, a sequence each, over one connection; all take their steps side by side.

python -m server &
python examples/follow_asyncio.py localhost:50051 recall one.csv two.csv three.csv
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np

import tidegate


async def follow(client: tidegate.AsyncClient, model: str, path: Path) -> str:
    """The last answer to a table of numbers, a step a row. Some steps are under way at any time."""
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    async with client.sequence(model, trace=False) as sequence:
        async for answer in sequence.stream(rows):
            last = answer
    return f"{path}: step {last.step}: {last.output.tolist()}"


async def main() -> None:
    """Prints each file's last answer, in the order of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the server, or https://HOST:PORT")
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path, help="tables of numbers, separated by commas, without a head")
    given = parser.parse_args()
    async with tidegate.AsyncClient(given.address) as client:
        for line in await asyncio.gather(*(follow(client, given.model, path) for path in given.files)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main())
