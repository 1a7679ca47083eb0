"""Takes model files in: what is known of their content from the cache of proofs, the rest from quarantine.

Nothing that nobody has proved comes into this process: only step graphs that our own code wrote, and ran elsewhere.
"""

from pathlib import Path

from server.errors import ModelRefused
from server.handover import Refused, Verdict, put_together
from server.model import LoadedModel
from server.proofs import Proofs
from server.quarantine import Limits, Quarantine
from server.settings import Settings


class Intake:
    """For one thread at a time; `close` for any."""

    def __init__(self, settings: Settings) -> None:
        self._how = (settings.max_batch, settings.patience_ms / 1e3)
        self._quarantine = Quarantine(Limits(settings.load_seconds, settings.load_memory_mib))
        self._proofs = Proofs(settings.cache_folder, settings.cache_bytes)

    def load(self, path: Path) -> LoadedModel:
        """A model that is proved and warmed up. Slow: to be called away from the event loop.

        Raises:
            ModelRefused: the file cannot be served.
        """
        known = self._proofs.find(path, *self._how)
        verdict = known or self._found_out(path)
        if isinstance(verdict.outcome, Refused):
            raise ModelRefused(verdict.outcome.message, verdict.outcome.node)
        return put_together(verdict.outcome, self._how[1], fresh=known is None)

    def close(self) -> None:
        """Ends the process that looks into files, if there is one; it comes back when it is needed."""
        self._quarantine.close()

    def _found_out(self, path: Path) -> Verdict:
        max_batch, patience = self._how
        verdict = self._quarantine.ask(Verdict, "load", path, max_batch=max_batch, patience=patience)
        self._proofs.keep(verdict, *self._how)
        return verdict
