"""The look at a table before anything is learnt from it: what was found in it, and what is done about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group
from rich.table import Table as Page
from rich.text import Text

from training.errors import DataError
from training.tabular.looking import reading
from training.tabular.looking.grid import Grid, counted, lay_out, steps_ahead
from training.tabular.looking.leaks import Leak, leaks
from training.tabular.looking.roles import Asked, Roles, assign

if TYPE_CHECKING:
    from training.tabular.looking.reading import Rows

FEWEST_ROWS = 50
MANY = 0.1  # of the rows that are kept
NAMES_SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One line of the page: of what, what was found, and what is done about it ("" for nothing)."""

    subject: str
    found: str
    done: str = ""


@dataclass(frozen=True)
class Look:
    """A table that can be learnt from."""

    rows: Rows
    roles: Roles
    grid: Grid
    horizons: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def page(self) -> Group:
        page = Page("what", "found", "what is done about it", show_lines=False, expand=False)
        for finding in self.findings:
            page.add_row(Text(finding.subject), Text(finding.found), Text(finding.done))
        return Group(Text(f"{self.rows.name}: {self.rows.count:,} rows, {len(self.rows.columns)} columns"), page)


def look(rows: Rows, asked: Asked, horizons: tuple[int, ...]) -> Look:
    """Give every column its role and say what was found.

    Raises:
        DataError: the table cannot be used for this; one sentence with file, line, column and what to do.
    """
    roles = assign(rows, asked)
    grid = lay_out(rows, roles)
    known = leaks(rows, roles, grid, horizons)
    roles = roles.without({leak.column: f"it {leak.says}" for leak in known if leak.certain})
    require_static(rows, grid, asked.static)
    require_enough(rows, roles, grid, horizons)
    findings = (
        *task(roles, horizons, grid),
        *time(roles, grid),
        *series(roles, grid),
        *(column(rows, roles, grid, name) for name in rows.columns),
        *(suspicion(leak) for leak in known if not leak.certain),
    )
    return Look(rows, roles, grid, horizons, findings)


def read_and_look(files: tuple[str, ...], asked: Asked, horizons: tuple[int, ...]) -> Look:
    return look(reading.read(files), asked, horizons)


def require_enough(rows: Rows, roles: Roles, grid: Grid, horizons: tuple[int, ...]) -> None:
    """Refuse a table that is too short for what is asked of it."""
    if grid.count < FEWEST_ROWS:
        own = " with a time of their own" if grid.duplicates else ""
        raise DataError(f"{rows.name} has {grid.count} rows{own}; give at least {FEWEST_ROWS}")
    if roles.goal == "classify":
        return
    longest = max(int(grid.tick_N[end - 1] - grid.tick_N[start]) for start, end in grid.bounds)
    if max(horizons) > longest // 2:
        raise DataError(
            f"--horizons: {max(horizons)} steps are longer than half of the data, whose longest series has "
            f"{longest + 1} steps of {grid.step}; give shorter horizons or more rows"
        )
    for name in roles.targets:
        values = rows.columns[name].values
        given = int((~np.isnan(values)).sum())
        if given < FEWEST_ROWS:
            raise DataError(
                f"{rows.name}, column {name!r}: only {given} rows have a value; give at least {FEWEST_ROWS}"
            )


def task(roles: Roles, horizons: tuple[int, ...], grid: Grid) -> list[Finding]:
    targets = ", ".join(roles.targets)
    what = f"{roles.goal} {targets}"
    if roles.goal != "classify":
        what += f", {steps_ahead(horizons)} (a step is {grid.step.with_article})"
    return [Finding("task", what, f"because {roles.why}" if roles.why != "--task" else roles.why)]


def time(roles: Roles, grid: Grid) -> list[Finding]:
    """The time step and what disturbs it."""
    if roles.clock is None or grid.time_N is None:
        done = "rows count as one step apart, in the file's order (--time COLUMN)"
        if roles.goal == "classify" and not roles.series:
            done += "; if their order means nothing, shuffle them first"
        return [Finding("time", "no column of times", done)]
    named = " ".join(roles.clock.columns)
    first, last = (
        str(moment.astype("datetime64[m]")).replace("T", " ") for moment in (grid.time_N.min(), grid.time_N.max())
    )
    found = [Finding("time", f"{named}: {first} to {last}, a row each {grid.step}")]
    if grid.unsorted:
        found.append(Finding("time", "rows are not in the order of time", "sorted"))
    if grid.hours_twice:
        nights = ", ".join(str(moment.astype("datetime64[D]")) for moment in grid.hours_twice[:NAMES_SHOWN])
        more = ", ..." if len(grid.hours_twice) > NAMES_SHOWN else ""
        found.append(
            Finding(
                "time",
                f"an hour that comes twice, at the end of summer time: {nights}{more}",
                "both are kept, one after the other; times with their offset from UTC would need no such guess",
            )
        )
    if grid.duplicates:
        several = "" if grid.duplicates < MANY * grid.count else "; rows of several series? Name their column: --series"
        found.append(
            Finding(
                "time",
                f"{counted(grid.duplicates, 'row')} with the time of another one",
                f"the last of them is kept{several}",
            )
        )
    if grid.gaps:
        found.append(
            Finding(
                "time",
                f"{counted(grid.gaps, 'gap')}, the longest of {counted(grid.longest_gap, 'step')}",
                "nothing is filled in: the time since the last row is an input",
            )
        )
    if grid.off_grid:
        found.append(
            Finding(
                "time",
                f"{grid.off_grid:,} rows are not a whole number of steps from the first",
                "counted at the nearest; the time since the last row is an input",
            )
        )
    return found


def series(roles: Roles, grid: Grid) -> list[Finding]:
    if not roles.series:
        return []
    lengths = np.array([end - start for start, end in grid.bounds])
    least, most = lengths.min(), lengths.max()
    shape = f"{len(lengths):,} series of {least:,} {'rows each' if least == most else f'to {most:,} rows'}"
    return [Finding("series", f"{', '.join(roles.series)}: {shape}", "each begins with a state of zeros")]


def differs(rows: Rows, grid: Grid, name: str) -> int | None:
    """The first row, as the file counts, whose value is not the first one of its series; None if there is none."""
    column = rows.columns[name]
    there_N, values = ~column.missing_N[grid.row_N], column.values[grid.row_N]
    for start, end in grid.bounds:
        given = start + np.flatnonzero(there_N[start:end])
        other = given[values[given] != values[given[0]]] if len(given) else given
        if len(other):
            return int(grid.row_N[other[0]])
    return None


def require_static(rows: Rows, grid: Grid, names: tuple[str, ...]) -> None:
    """Refuse a column that was said to be the same in all rows of a series, and is not."""
    for name in names:
        row = differs(rows, grid, name)
        if row is not None:
            raise DataError(
                f"{rows.origin.place(row)}, column {name!r}: {rows.columns[name].values[row]} is not what other rows "
                "of its series have; correct it, or leave it out of --static"
            )


def column(rows: Rows, roles: Roles, grid: Grid, name: str) -> Finding:
    """One column: its kind, what is missing, its role."""
    values = rows.columns[name]
    missing = int(values.missing_N.sum())
    found = described(rows, name) + (f", {missing:,} missing ({missing / rows.count:.1%})" if missing else "")
    done = role(roles, name, missing)
    if name in roles.known:
        done += "; what it is at each forecast's time is an input too"
    if done.startswith("input") and len(grid.names) > 1 and differs(rows, grid, name) is None:
        done += "; static: the same in all rows of a series"
    return Finding(name, found, done)


def described(rows: Rows, name: str) -> str:
    column = rows.columns[name]
    given = column.values[~column.missing_N]
    if len(given) == 0:
        return "empty"
    if column.kind == "number":
        note = f" ({column.note})" if column.note else ""
        return f"number from {given.min():g} to {given.max():g}{note}"
    if column.kind == "time":
        return "time" + (f" as {column.form}" if column.form != "%ISO" else "")
    different = sorted(set(given.tolist()))
    shown = ", ".join(different[:NAMES_SHOWN]) + (", ..." if len(different) > NAMES_SHOWN else "")
    return f"{counted(len(different), 'text')}: {shown[:80]}"


def role(roles: Roles, name: str, missing: int) -> str:
    filled = "; the last value, that it is missing, and since when, are inputs" if missing else ""
    if name in roles.left_out:
        return f"left out: {roles.left_out[name]}"
    if name in roles.targets:
        return (
            f"target{' and input' if name in roles.numbers else ''}"
            + ("; rows without it teach nothing" if missing else "")
            + (filled if name in roles.numbers else "")
        )
    if name in roles.series:
        return "series"
    if name in roles.categories:
        return "input, embedded; index 0 is for what was never seen" + (" or is missing" if missing else "")
    if name in roles.numbers:
        return "input" + filled
    return "time" if roles.clock and name in roles.clock.columns else "left out"


def suspicion(leak: Leak) -> Finding:
    return Finding(
        leak.column, leak.says, f"kept; if it is measured later than the row, leave it out: --ignore {leak.column}"
    )
