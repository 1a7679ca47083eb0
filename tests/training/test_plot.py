from pathlib import Path

import pytest

from training.fitting import plot
from training.fitting.trainer import Evaluation


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("losses", "wanted"),
    [((1.0, 0.5), "linear"), ((1.0, 0.1), "log"), ((1.0, 0.0), "linear"), ((1.0,), "linear")],
    ids=["halved", "a tenth", "zero", "one validation"],
)
def test_a_loss_that_falls_tenfold_is_drawn_on_a_logarithmic_axis(
    losses: tuple[float, ...], wanted: str, tmp_path: Path
) -> None:
    evaluations = [Evaluation(step, loss, loss, 0.01, True) for step, loss in enumerate(losses, 1)]
    assert plot.scale(evaluations) == wanted
    plot.draw(evaluations, "a fit", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
