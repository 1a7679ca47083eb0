"""`training.table(frame, target=...)`: what the command does, from Python and with a frame of any library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from training.fitting import processes
from training.tabular.comparing import fit_each, land
from training.tabular.looking.frame import rows_of
from training.tabular.looking.look import look
from training.tabular.settings import defaults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.fitting.session import Result


def table(
    frame: Any,  # noqa: ANN401 - of any library
    *,
    target: str | Sequence[str],
    console: Console | None = None,
    **settings: Any,  # noqa: ANN401 - a field's value
) -> Result:
    """Fit a network on a frame of pandas, polars or Arrow, judge it and export it; the card lies in the run's folder.

    `settings` are those of the command: `horizons=(1, 6, 24)`, `series="sensor"`, `quantiles=(0.1, 0.5, 0.9)`.

    Raises:
        DataError: the table cannot be used for this; one sentence with column and what to do.
        ConfigError: a setting is out of range.
        Interrupted: Ctrl-C; the best so far is exported, and the same call goes on.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    config = defaults(target=target, **settings)
    found = look(rows_of(frame), config.asked, tuple(sorted(set(config.horizons))))
    console.print(found.page)
    fits, interrupted = fit_each([config], found, fresh=False, console=console)
    results = processes.told([land(fit, console, f"training.table(frame, target={target!r}, ...)") for fit in fits])
    if interrupted:
        raise interrupted
    return results[0]
