"""What one measurement gives, and what several rounds of it come to. Pure values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One window of one contestant in one scenario."""

    messages_per_second: float
    steps_per_second: float
    # Seconds from sending a message to its whole answer.
    median: float = 0.0
    p99: float = 0.0
    # Processors in use: 1.0 is one core, all the time.
    client: float = 0.0
    server: float = 0.0
    # What everything else on the machine took meanwhile: far from 0, the figures are poor.
    others: float = 0.0
