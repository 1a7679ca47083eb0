"""Takes model files in: what is known of their content from the cache of proofs, the rest from quarantine.

Nothing that nobody has proved comes into this process: only step graphs that our own code wrote, and ran elsewhere.
"""

from pathlib import Path

from stepgraph.errors import ModelRefused
from stepgraph.isolation.cache import ProofCache
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.isolation.verdict import Refused, Verdict, put_together
from stepgraph.model import LoadedModel


class Intake:
    """For one thread at a time; `close` for any.

    Models are warmed up for batches of up to `max_batch`, or that take `patience` seconds.
    """

    def __init__(self, max_batch: int, patience: float, limits: Limits, cache: ProofCache) -> None:
        self._how = (max_batch, patience)
        self._sandbox = Sandbox(limits)
        self._cache = cache

    def load(self, path: Path) -> LoadedModel:
        """A model that is proved and warmed up. Slow: to be called away from the event loop.

        Raises:
            ModelRefused: the file cannot be served.
        """
        known = self._cache.find(path, *self._how)
        verdict = known or self._found_out(path)
        if isinstance(verdict.outcome, Refused):
            raise ModelRefused(verdict.outcome.message, verdict.outcome.node)
        return put_together(verdict.outcome, self._how[1], fresh=known is None)

    def close(self) -> None:
        """Ends the process that looks into files, if there is one; it comes back when it is needed."""
        self._sandbox.close()

    def _found_out(self, path: Path) -> Verdict:
        max_batch, patience = self._how
        verdict = self._sandbox.ask(Verdict, "load", path, max_batch=max_batch, patience=patience)
        self._cache.keep(verdict, *self._how)
        return verdict
