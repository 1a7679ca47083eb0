"""An observer of the server: logs the largest number of each output of each model whenever it has risen.

Start the server with `python -m server --observer examples.observer:Largest`.
"""

import logging
from math import inf

from server.runtime.observer import Results

log = logging.getLogger(__name__)


class Largest:
    """Made once for each process of the server; `answered` is called with all results of all models."""

    def __init__(self) -> None:
        self._largest: dict[tuple[str, str], float] = {}  # by model and output

    def answered(self, results: Results) -> None:
        for name, rows in results.outputs.items():
            key, largest = (results.model, name), float(rows.max())
            if largest > self._largest.get(key, -inf):
                self._largest[key] = largest
                step, sequences = results.first_steps.max(), ", ".join(results.sequences)
                log.info("model %s, output %s: %g, in the answer to step %d of %s", *key, largest, step, sequences)
