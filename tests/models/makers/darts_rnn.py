"""darts' RNNModel, as its `to_onnx` writes it: `python -m tests.models.makers.darts_rnn`.

darts fixes the batch to 1 and the time to its training length, and returns the last state, which no input takes.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from darts import TimeSeries
from darts.models import RNNModel
from darts.utils.likelihood_models import GaussianLikelihood

from tests.models.makers.artefact import BATCH, STEPS, Recorded, save

FOLDER = Path(__file__).parents[1] / "made" / "darts"
LENGTH, HIDDEN = 8, 4
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
CASES: dict[str, dict[str, Any]] = {
    "lstm": {"model": "LSTM"},
    "gru": {"model": "GRU", "n_rnn_layers": 2},
    "rnn": {"model": "RNN"},
    "lstm-covariates": {"model": "LSTM", "covariates": True},
    "gru-likelihood": {"model": "GRU", "likelihood": GaussianLikelihood()},
    "lstm-free-axes": {"model": "LSTM", "free": True},
}


def _fitted(*, covariates: bool, **options: Any) -> RNNModel:  # noqa: ANN401 # darts' own
    """A model after one epoch on a sine; what it learns does not matter."""
    at = np.arange(40, dtype=np.float32)
    series = TimeSeries.from_values(np.sin(at / 5)[:, np.newaxis])
    beside = TimeSeries.from_values(np.stack([np.cos(at / 7), np.sin(at / 11)], 1)) if covariates else None
    model = RNNModel(
        input_chunk_length=4,
        training_length=LENGTH,
        hidden_dim=HIDDEN,
        n_epochs=1,
        random_state=0,
        pl_trainer_kwargs=QUIET,
        **options,
    )
    model.fit(series, future_covariates=beside)
    return model


def _recorded(module: torch.nn.Module, features: int, names: list[str]) -> Recorded:
    """What darts' module answers to each prefix, and the states that it ends in."""
    x_TBF = torch.randn((STEPS, BATCH, features), generator=torch.Generator().manual_seed(0))
    answers, states = [], []
    for step in range(STEPS):
        with torch.no_grad():
            y, last = module((x_TBF[: step + 1].transpose(0, 1), None, None))
        answers.append(y[:, -1].numpy())
        states.append([s.numpy() for s in (last if isinstance(last, tuple) else (last,))])
    outputs = {names[0]: np.stack(answers)}
    shown = {name: np.stack([step[i] for step in states]) for i, name in enumerate(names[1:])}  # [T, L, B, H]
    outputs |= {name: np.moveaxis(state, 2, 1) for name, state in shown.items()}
    trace = {
        (layer, kind): state[:, layer]
        for kind, state in zip(("hidden", "cell"), shown.values(), strict=False)
        for layer in range(state.shape[1])
    }
    return Recorded({"x_past": x_TBF.numpy()}, outputs, trace)


def main() -> None:
    """Makes every file."""
    logging.disable(logging.WARNING)
    for name, case in CASES.items():
        options = {"covariates": False} | case
        free = options.pop("free", False)
        model = _fitted(**options)
        path = FOLDER / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        axes = {"x_past": {0: "batch", 1: "time"}}
        model.to_onnx(str(path), **({"dynamic_axes": axes} if free else {}))
        made = onnx.load(path)
        features = 3 if options["covariates"] else 1
        save(path, made, _recorded(model.model.eval(), features, [y.name for y in made.graph.output]))


if __name__ == "__main__":
    main()
