"""`python -m tests.fuzz.one TARGET FOLDER [OPTIONS]`: one target under libFuzzer, guided by what the code does.

Its inputs begin with those in FOLDER, where it writes those that reached something new; OPTIONS are libFuzzer's. An
input that breaks a promise is kept beside FOLDER as `crash-...`, and ends the process with an error.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

from tests.fuzz.guided import LONGEST, TARGETS

SEEDS = 200


def main() -> None:
    """Ends as libFuzzer ends it."""
    name, folder, *options = sys.argv[1:]
    target, corpus = TARGETS[name](), Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        seeds = target.seeds(random.Random(1))  # noqa: S311 - no secret
        for number in range(SEEDS):
            (corpus / f"seed-{number}").write_bytes(next(seeds)[:LONGEST])
    limits = [f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=1500", f"-artifact_prefix={corpus.parent}/"]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], target.take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
