"""What a classification is worth: beside always saying the most frequent class, and beside the classes' shares.

Legend: N rows, M rows that are judged, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group
from rich.table import Table as Page
from rich.text import Text

from training.tabular.learning import splits
from training.task import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.learning.classify import Classify
    from training.tabular.task import TableTask


@dataclass(frozen=True)
class Judged:
    """Probabilities and labels of what is judged: every labelled row of the test, or the last row of each series."""

    p_MC: NDArray[np.float64]
    label_M: NDArray[np.int64]

    @property
    def said_M(self) -> NDArray[np.int64]:
        return np.asarray(self.p_MC.argmax(axis=1), dtype=np.int64)

    @property
    def accuracy(self) -> float:
        return float((self.said_M == self.label_M).mean())

    @property
    def log_loss(self) -> float:
        """Mean negative logarithm of what was given to the right class."""
        return float(-np.log(self.p_MC[np.arange(len(self.label_M)), self.label_M].clip(1e-7)).mean())


def judged(task: TableTask, aim: Classify, y_NC: NDArray[np.float32]) -> Judged:
    """What counts of the test."""
    there_N = (task.parts.part_N == splits.TEST) & (aim.y_N >= 0)
    if aim.whole:
        last_N = np.zeros(len(there_N), dtype=bool)
        last_N[[end - 1 for _, _, end in task.parts.spans(task.look.grid, splits.TEST, 0)]] = True
        there_N &= last_N
    return Judged(y_NC[there_N].astype(np.float64), aim.y_N[there_N])


def judge_classes(task: TableTask, aim: Classify, y_NC: NDArray[np.float32]) -> Report:
    """Accuracy, log loss, and precision and recall of each class."""
    found = judged(task, aim, y_NC)
    most = int(aim.prior_C.argmax())
    majority = float((found.label_M == most).mean())
    prior = float(-np.log(aim.prior_C[found.label_M].clip(1e-7)).mean())
    classes = {name: scores(found, index) for index, name in enumerate(aim.classes)}
    page = Page("class", "precision", "recall", "F1", "rows")
    for name, (precision, recall, f1, count) in classes.items():
        page.add_row(name, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", f"{count:,}")
    only = np.unique(found.label_M)
    text = sentence(found, majority, prior, aim.classes[most]) if len(only) > 1 else of_one_class(aim, found)
    values: dict[str, object] = {
        "verdict": text,
        "score": found.log_loss / max(prior, 1e-12),
        "accuracy": found.accuracy,
        "log_loss": found.log_loss,
        "majority": majority,
        "prior": prior,
        "macro_f1": float(np.mean([f1 for _, _, f1, count in classes.values() if count])),
        "rows": len(found.label_M),
        "classes": {
            name: dict(zip(("precision", "recall", "f1", "rows"), row, strict=True)) for name, row in classes.items()
        },
    }
    return Report(Group(Text(text), page), values)


def scores(found: Judged, index: int) -> tuple[float, float, float, int]:
    """Precision, recall, F1 and rows of one class."""
    right = int(((found.said_M == index) & (found.label_M == index)).sum())
    said, there = int((found.said_M == index).sum()), int((found.label_M == index).sum())
    precision, recall = right / max(said, 1), right / max(there, 1)
    return precision, recall, 2 * right / max(said + there, 1), there


def of_one_class(aim: Classify, found: Judged) -> str:
    """What is said of a test that tells no classes apart."""
    only = aim.classes[found.label_M[0]]
    return (
        f"The test says NOTHING of what the model is worth: all of its rows are {only!r}. "
        "If the order of the rows means nothing, shuffle them."
    )


def sentence(found: Judged, majority: float, prior: float, most: str) -> str:
    """The first line of everything. A model that loses says so first."""
    beside = (
        f"{found.accuracy:.1%} are right, and always saying {most!r} is right in {majority:.1%}; "
        f"log loss {found.log_loss:.3f}, and {prior:.3f} by the classes' shares alone"
    )
    if found.log_loss >= prior:
        return f"It LOSES to the classes' shares: {beside}. Do not use it."
    if found.accuracy <= majority:
        return f"It is NOT more often right than the most frequent class: {beside}."
    return f"It beats the most frequent class: {beside}."
