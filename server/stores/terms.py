"""How long a store keeps things, and how many."""

from dataclasses import dataclass

LEASE = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are kept; times in seconds."""

    keep: int = 4  # checkpoints of each sequence, the newest, 1 to 255
    retention: float = 7 * 86_400.0  # a sequence that has been parked for so long has expired
    tombstone: float = 7 * 86_400.0  # so long it is known why a sequence is gone
    lease: float = LEASE  # of a sequence that is awake its owner has to say so again within this time
    tombstones: int = 10_000  # of so many sequences of one owner that are gone it is known why, of the last ones
    gap: float = 60.0  # the most that counts as passed between two calls of a server

    def __post_init__(self) -> None:
        above = min(self.retention, self.lease, self.gap) > 0 and min(self.tombstone, self.tombstones) >= 0
        if not (1 <= self.keep <= 255 and above):
            raise ValueError(
                f"{self}: expected to keep 1 to 255, a retention, a lease and a gap above 0 s, no tombstone below"
            )
