"""What was found out about one thing that a server needs."""

from dataclasses import dataclass

OK, WARNING, FAULT = "ok", "warning", "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `mend`: what to do, unless it is ok."""

    level: str  # OK; WARNING: it serves all the same; FAULT: it does not serve, or not as the settings say
    subject: str
    text: str
    mend: str = ""
