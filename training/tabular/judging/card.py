"""The card of a model: Markdown with the head that model hubs read, and pictures beside it.

Everything in it is computed from the answers of the exported file to the rows of the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from training.fitting import atomic_files
from training.fitting.run import versions
from training.tabular.judging import pictures
from training.tabular.judging.classes import Judged, judged
from training.tabular.judging.verdict import compare
from training.tabular.learning import splits
from training.tabular.learning.classify import Classify
from training.tabular.learning.forecast import Forecast
from training.tabular.looking.grid import counted
from training.tabular.looking.reading import called

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from training.fitting.session import Result
    from training.tabular.task import TableTask

CHECK_SECONDS = 120


def write(task: TableTask, result: Result, command: str, beside: str = "", again: str = "") -> Path:
    """Write `card.md` and its pictures into the run's folder.

    `beside`: what other seeds and cells achieved; `again`: what the network achieves if it is fitted again on the way.
    """
    y_NO = answered(task, result.model.path)
    folder = result.run.folder
    values = result.report.values
    parts = [
        head(task, values),
        f"{values['verdict']}\n",
        f"# {task.config.name}, version {result.model.number}\n\n{task.description}\n",
        metrics(task, values),
        *([again] if again else []),
        *(figures(task, y_NO, folder)),
        data(task),
        recipe(task, result) + (f"\n{beside}\n" if beside else ""),
        served(result.model.path),
        f"## Again\n\n```sh\n{command}\n```\n",
    ]
    path = folder / "card.md"
    atomic_files.write(path, "\n".join(parts))
    return path


def answered(task: TableTask, model: Path) -> NDArray[np.float32]:
    """The answers of the exported file to the test, [N, O]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    y_NO = np.full((len(task.inputs.x_NF), len(task.aim.outputs)), np.nan, dtype=np.float32)
    for begin, first, end in task.parts.spans(task.look.grid, splits.TEST, task.lead):
        (found,) = session.run(None, {"x": task.inputs.x_NF[None, begin:end]})
        y_NO[first:end] = found[0, first - begin :]
    return y_NO


def head(task: TableTask, values: dict[str, Any]) -> str:
    """What a model hub reads."""
    kind = "tabular-classification" if isinstance(task.aim, Classify) else "time-series-forecasting"
    lines = ["---", "library_name: onnx", f"pipeline_tag: {kind}", "tags: [tidegate, onnx, recurrent, streaming]"]
    name, identifier = json.dumps(task.look.rows.name), json.dumps(called(task.look.rows.origin.names[0]))
    lines += ["model-index:", f"- name: {json.dumps(task.config.name)}", "  results:", f"  - task: {{type: {kind}}}"]
    lines += [f"    dataset: {{name: {name}, type: {identifier}}}", "    metrics:"]
    if isinstance(task.aim, Classify):
        lines += [f"    - {{type: {name}, value: {values[name]:.6g}}}" for name in ("accuracy", "log_loss", "macro_f1")]
    else:
        lines += [
            f"    - {{type: mae, name: {json.dumps(line['title'])}, value: {line['errors']['model']:.6g}}}"
            for line in values["lines"]
        ]
    return "\n".join([*lines, "---", ""])


def metrics(task: TableTask, values: dict[str, Any]) -> str:
    """The table of the report, as Markdown."""
    if isinstance(task.aim, Classify):
        rows = [
            [name, *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), row["rows"]]
            for name, row in values["classes"].items()
        ]
        return "## On the test\n\n" + table(["class", "precision", "recall", "F1", "rows"], rows)
    names = list(dict.fromkeys(name for line in values["lines"] for name in line["errors"]))
    rows = [
        [
            line["title"],
            *(f"{line['errors'][name]:.4g}" for name in names),
            f"{line['rmse']:.4g}",
            line["rows"],
        ]
        for line in values["lines"]
    ]
    text = "## On the test\n\n"
    text += "Mean absolute error; a rolling origin: each row is one, and the network is not fitted again.\n\n"
    text += table(["", *names, "RMSE of the model", "rows"], rows)
    if len(values["series"]) > 1:
        text += "\n" + table(
            [", ".join(task.look.roles.series), "model", "best naive"],
            [[name, f"{mine:.4g}", f"{other:.4g}"] for name, mine, other in values["series"]],
        )
    text += "\nThe test in stretches, the oldest first (model / best naive): "
    text += ", ".join(f"{mine:.4g} / {other:.4g}" for mine, other in values["stretches"]) + ".\n"
    if values["anomaly"]:
        text += f"\n{values['anomaly']}\n"
    return text


def figures(task: TableTask, y_NO: NDArray[np.float32], folder: Path) -> list[str]:
    """Pictures, each with a sentence."""
    loss = "## Pictures\n\n![The loss over the steps](loss.png)\n"
    if isinstance(task.aim, Classify):
        return [loss, reliability(judged(task, task.aim, y_NO), folder)]
    made = [loss]
    last, grid = compare(task, y_NO)[-1], task.look.grid
    came_N, forecasts, naive = last.came_N, last.forecasts, last.naive
    rows_N = np.flatnonzero(last.scored_N)
    title = last.wanted.title
    ordered = rows_N[np.argsort(grid.tick_N[rows_N], kind="stable")]
    pictures.over_time(
        np.abs(forecasts["model"] - came_N)[ordered],
        np.abs(forecasts[naive] - came_N)[ordered],
        title,
        folder / "over_time.png",
    )
    names = [grid.when(row) for row in rows_N.tolist()]
    worst = pictures.worst(
        came_N[rows_N].astype(float), forecasts["model"][rows_N].astype(float), names, title, folder / "worst.png"
    )
    places = "; ".join(task.look.rows.origin.place(int(grid.row_N[rows_N[row]])) for row in worst)
    made.append("![The error over time](over_time.png)\n\n![The worst forecasts](worst.png)\n")
    made.append(f"The worst were made at {places}.\n")
    if len(task.quantiles) > 1:
        shares = coverage(task, y_NO)
        axes = ("quantile", "share below it")
        pictures.calibration(task.quantiles, shares, axes, folder / "calibration.png")
        said = ", ".join(f"{share:g}: {found:.3f}" for share, found in zip(task.quantiles, shares, strict=True))
        made.append(f"![Calibration](calibration.png)\n\nShare of the test below each quantile: {said}.\n")
    return made


def reliability(found: Judged, folder: Path) -> str:
    """How often the likeliest class was right, by how likely it was said to be."""
    sure_M = found.p_MC.max(axis=1)
    right_M = found.said_M == found.label_M
    bins = [part for part in np.array_split(np.argsort(sure_M), min(10, len(sure_M))) if len(part)]
    expected, came = [float(sure_M[part].mean()) for part in bins], [float(right_M[part].mean()) for part in bins]
    axes = ("probability of the likeliest class", "share that was right")
    pictures.calibration(expected, came, axes, folder / "calibration.png")
    return "![How often the likeliest class was right](calibration.png)\n"


def coverage(task: TableTask, y_NO: NDArray[np.float32]) -> list[float]:
    """How much of what came lay below each quantile, over all targets and horizons."""
    assert isinstance(task.aim, Forecast)
    came_NG = task.aim.y_NG
    found_NGQ = y_NO[:, : came_NG.shape[1] * len(task.quantiles)].reshape(*came_NG.shape, -1)
    known = ~np.isnan(came_NG) & ~np.isnan(found_NGQ[..., 0])
    return [float((came_NG < found_NGQ[..., index])[known].mean()) for index in range(len(task.quantiles))]


def data(task: TableTask) -> str:
    """What was read, and what was done about what was found."""
    rows = [[finding.subject, finding.found, finding.done] for finding in task.look.findings]
    return (
        f"## Data\n\n{task.data['source']}, sha256 `{task.look.rows.sha256[:16]}`; "
        + "; ".join(task.notes)
        + ".\n\n"
        + table(["what", "found", "what is done about it"], rows)
    )


def recipe(task: TableTask, result: Result) -> str:
    """The network, the fit and the versions."""
    config = task.config
    text = (
        f"{counted(config.layers, 'layer')} of {config.hidden} {config.cell.upper()} units, head `{config.f}`, "
        f"dropout {config.dropout:g}; Adam at {config.learning_rate:g}, {config.batch} lanes of {task.window} steps, "
        f"gradient at most {config.clip:g}; "
        f"{result.steps} steps, best at {result.best_step}; seed {config.seed}. The exported file is within "
        f"{result.export_error:.0e} of torch."
    )
    of = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"## Recipe\n\n{text}\n\n{of}.\n"


def served(model: Path) -> str:
    """The server's own check of the file, as a command; nothing where there is no server to ask."""
    if find_spec("server") is None:
        return ""
    try:
        asked = subprocess.run(  # noqa: S603 - our own module and file
            [sys.executable, "-m", "server", "check", "--json", str(model)],
            capture_output=True, text=True, timeout=CHECK_SECONDS, check=False,
        )  # fmt: skip
        said = json.loads(asked.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return ""
    if not said["served"]:
        return f"## Served\n\nThe server REFUSES the file: {said['reason']}\n"
    times = ", ".join(f"{cost['row_us']:.3g} us in a batch of {cost['batch']}" for cost in said["costs"])
    return f"## Served\n\nThe server's check says that it will be served; a step takes {times}, on this machine.\n"


def table(names: list[str], rows: list[list[Any]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"
