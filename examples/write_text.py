"""Writes text with a served character model: each character is drawn from the answer, and is the next step's input.

python -m training text          # once: minutes
python -m server &
python examples/write_text.py localhost:50051 --temperature 0.7
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import numpy as np

import tidegate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def chances(scores: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Scores as probabilities; below a temperature of 1 the likely ones gain, at 0 the first takes all."""
    if temperature == 0:
        return (np.arange(len(scores)) == scores.argmax()).astype(float)
    raised = np.exp((scores.astype(float) - scores.max()) / temperature)
    return raised / raised.sum()


def write(
    client: tidegate.Client, model: str, start: str, length: int, temperature: float, random: np.random.Generator
) -> Iterator[str]:
    """The characters after `start`, one by one. The server's sequence remembers what was written before."""
    symbols = client.describe(model).outputs[0].features
    number = {symbol: index for index, symbol in enumerate(symbols, 1)}
    with client.sequence(model, trace=False) as sequence:
        for symbol in start:
            answer = sequence.step([number.get(symbol, 0)])
        for _ in range(length):
            symbol = symbols[random.choice(len(symbols), p=chances(answer.output, temperature))]
            yield symbol
            answer = sequence.step([number[symbol]])


def main() -> None:
    """Writes to standard output as the answers come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the server, or https://HOST:PORT")
    parser.add_argument("--model", default="text")
    parser.add_argument("--start", default="ROMEO.\n", help="what the text begins with; at least one character")
    parser.add_argument("--length", type=int, default=400, help="characters to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 always takes the likeliest character")
    parser.add_argument("--seed", type=int, default=None, help="repeats a text")
    given = parser.parse_args()
    if not given.start or given.temperature < 0:
        parser.error("--start needs a character, --temperature a number from 0")
    random = np.random.default_rng(given.seed)
    with tidegate.connect(given.address) as client:
        sys.stdout.write(given.start)
        for symbol in write(client, given.model, given.start, given.length, given.temperature, random):
            sys.stdout.write(symbol)
            sys.stdout.flush()
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
