r"""Follows one sequence: each line of standard input is a step; its answer is printed before the next line is read.

python -m server &
printf '0.8,1,0\n-0.5,0,0\n0.1,0,1\n' | python examples/follow.py localhost:50051 recall
"""

import argparse
import sys

import tidegate


def main() -> None:
    """Prints each step, its outputs, and the mean over the units of each gate and state of the first layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the server, or https://HOST:PORT")
    parser.add_argument("model")
    given = parser.parse_args()
    with tidegate.connect(given.address) as client, client.sequence(given.model) as sequence:
        for line in sys.stdin:
            answer = sequence.step([float(field) for field in line.split(",")])
            layer = answer.layer[0]
            means = "  ".join(f"{part} {layer[part].mean():.2f}" for part in layer.parts)
            print(f"{answer.step}: {answer.output.tolist()}  {means}", flush=True)


if __name__ == "__main__":
    main()
