"""Keras networks, as tf2onnx writes them: `python -m tests.models.makers.keras_tf2onnx [2]`.

Keras 3 goes through `from_function`, because tf2onnx's `from_keras` does not know its tensors; Keras 2 (the package
tf_keras, with the argument 2) through `from_keras`. Only LSTM, and Keras 2's GRU, become ONNX operators: tf2onnx writes
every other recurrence as a Loop.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
import tf2onnx

from tests.models.makers.artefact import BATCH, STEPS, Recorded, save

OLD = sys.argv[1:] == ["2"]
if OLD:
    import tf_keras as keras
else:
    import keras

FOLDER = Path(__file__).parents[1] / "made" / ("keras2" if OLD else "keras3")
FEATURES, UNITS, OUTPUTS, TOKENS = 3, 4, 2, 7
L = keras.layers


def _sequential(*layers: Any, **given: Any) -> Any:  # noqa: ANN401 # Keras has no types
    return keras.Sequential([keras.Input(**({"shape": (None, FEATURES)} | given)), *layers])


def _every(cell: Any) -> tuple[Any, Any]:  # noqa: ANN401
    return cell, L.Dense(OUTPUTS)


def _stateful() -> Any:  # noqa: ANN401
    return _sequential(*_every(L.LSTM(UNITS, return_sequences=True, stateful=True)), batch_size=BATCH)


def _shown() -> Any:  # noqa: ANN401
    """States in the interface, as encoders and decoders have them."""
    x, h, c = keras.Input((None, FEATURES)), keras.Input((UNITS,)), keras.Input((UNITS,))
    y, *states = L.LSTM(UNITS, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    return keras.Model([x, h, c], [L.Dense(OUTPUTS)(y), *states])


def _attention() -> Any:  # noqa: ANN401
    x = keras.Input((None, FEATURES))
    y = L.LSTM(UNITS, return_sequences=True)(x)
    return keras.Model(x, L.Dense(OUTPUTS)(L.Attention()([y, y])))


def networks() -> Mapping[str, Any]:
    """Each case by its name; in Keras 2 only those that tf2onnx writes unlike Keras 3's."""
    every = {"return_sequences": True}
    cases = {
        "lstm": lambda: _sequential(*_every(L.LSTM(UNITS, **every))),
        "gru": lambda: _sequential(*_every(L.GRU(UNITS, **every))),
        "gru-reset-before": lambda: _sequential(*_every(L.GRU(UNITS, reset_after=False, **every))),
        "simple-rnn": lambda: _sequential(*_every(L.SimpleRNN(UNITS, **every))),
        "lstm-masking": lambda: _sequential(L.Masking(), *_every(L.LSTM(UNITS, **every))),
        "gru-masking": lambda: _sequential(L.Masking(), *_every(L.GRU(UNITS, **every))),
        "lstm-stateful": _stateful,
        "time-distributed": lambda: _sequential(
            L.TimeDistributed(L.Dense(5, "relu")), L.LSTM(UNITS, **every), L.TimeDistributed(L.Dense(OUTPUTS))
        ),
    }
    if OLD:
        return cases
    return cases | {
        "lstm-last": lambda: _sequential(*_every(L.LSTM(UNITS))),
        "gru-last": lambda: _sequential(*_every(L.GRU(UNITS))),
        "simple-rnn-last": lambda: _sequential(*_every(L.SimpleRNN(UNITS))),
        "lstm-stacked": lambda: _sequential(L.LSTM(UNITS, **every), *_every(L.LSTM(UNITS + 1, **every))),
        "lstm-then-gru": lambda: _sequential(L.LSTM(UNITS, **every), *_every(L.GRU(UNITS + 1, **every))),
        "lstm-shown": _shown,
        "lstm-sigmoid": lambda: _sequential(*_every(L.LSTM(UNITS, activation="sigmoid", **every))),
        "lstm-unrolled": lambda: _sequential(*_every(L.LSTM(UNITS, unroll=True, **every)), shape=(STEPS, FEATURES)),
        "normalised": lambda: _sequential(L.LayerNormalization(), *_every(L.LSTM(UNITS, **every))),
        "tokens": lambda: _sequential(
            L.Embedding(TOKENS, FEATURES), *_every(L.LSTM(UNITS, **every)), shape=(None,), dtype="int32"
        ),
        "bidirectional": lambda: _sequential(*_every(L.Bidirectional(L.LSTM(UNITS, **every)))),
        "backwards": lambda: _sequential(*_every(L.LSTM(UNITS, go_backwards=True, **every))),
        "conv1d": lambda: _sequential(L.Conv1D(5, 3, padding="same"), *_every(L.LSTM(UNITS, **every))),
        "pooled": lambda: _sequential(L.LSTM(UNITS, **every), L.GlobalAveragePooling1D(), L.Dense(OUTPUTS)),
        "attention": _attention,
    }


def _inputs(network: Any, random: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ANN401
    """[T, B, ...row] for each input that is data."""
    if network.inputs[0].dtype in ("int32", tf.int32):
        return {"x": random.integers(0, TOKENS, (STEPS, BATCH)).astype(np.int32)}
    x = random.standard_normal((STEPS, BATCH, FEATURES)).astype(np.float32)
    x[3, 0] = x[1, 1] = 0  # what a layer Masking leaves out
    return {"x": x}


def _answers(network: Any, x_TBF: np.ndarray) -> np.ndarray:  # noqa: ANN401
    """What Keras answers to each prefix, last step only: [T, B, ...row]."""
    answers = []
    for step in range(STEPS):
        for layer in network.layers:
            if getattr(layer, "stateful", False):
                layer.reset_states() if OLD else layer.reset_state()
        prefix = np.swapaxes(x_TBF[: step + 1], 0, 1)
        if network.inputs[0].shape[1] == STEPS:  # it takes no other length
            prefix = np.pad(prefix, ((0, 0), (0, STEPS - step - 1), (0, 0)))
        states = [np.zeros((BATCH, UNITS), np.float32) for _ in network.inputs[1:]]
        y = network([prefix, *states] if states else prefix, training=False)
        y = np.asarray(y[0] if isinstance(y, list | tuple) else y)
        answers.append(y[:, min(step, y.shape[1] - 1)] if y.ndim == 3 else y)
    return np.stack(answers)


def _trace(network: Any, x_TBF: np.ndarray) -> dict[tuple[int, str], np.ndarray]:  # noqa: ANN401
    """The states after each step, where layers simply follow one another: each layer's own cell, step by step."""
    kinds = [type(layer).__name__ for layer in network.layers]
    if not isinstance(network, keras.Sequential) or not {*kinds} <= {"LSTM", "GRU", "SimpleRNN", "Dense"}:
        return {}
    cells = [layer.cell for layer in network.layers if hasattr(layer, "cell")]
    states = [[tf.zeros((BATCH, cell.units)) for _ in range(1 + isinstance(cell, L.LSTMCell))] for cell in cells]
    rows: dict[tuple[int, str], list[np.ndarray]] = {}
    for x_BF in x_TBF:
        y = tf.constant(x_BF)
        for i, cell in enumerate(cells):
            y, states[i] = cell(y, states[i])
            for name, state in zip(("hidden", "cell"), states[i], strict=False):
                rows.setdefault((i, name), []).append(np.asarray(state))
    return {key: np.stack(values) for key, values in rows.items()}


def _spread(network: Any, random: np.random.Generator) -> None:  # noqa: ANN401
    """Random weights and biases, so that no two gates are alike."""
    network.set_weights([random.normal(0, 0.5, w.shape).astype(np.float32) for w in network.get_weights()])


def _convert(network: Any) -> Any:  # noqa: ANN401
    names = ["x", *(f"state_{i}" for i in range(len(network.inputs) - 1))]
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in zip(names, network.inputs, strict=True)
    ]
    if OLD:
        model, _ = tf2onnx.convert.from_keras(network, signature, opset=17)
        return model

    def call(*given: Any) -> dict[str, Any]:  # noqa: ANN401
        y = network(list(given) if len(given) > 1 else given[0], training=False)
        outputs = y if isinstance(y, list | tuple) else [y]
        return {"y": outputs[0]} | {f"state_{i}_out": state for i, state in enumerate(outputs[1:])}

    function = tf.function(call, input_signature=signature)
    model, _ = tf2onnx.convert.from_function(function, signature, opset=17)
    return model


def main() -> None:
    """Makes every file of this version of Keras."""
    for number, (name, make) in enumerate(networks().items()):
        random = np.random.default_rng(number)
        network = make()
        _spread(network, random)
        model = _convert(network)
        inputs = _inputs(network, random)
        y = model.graph.output[-1].name  # the others, if any, are states
        answers = {y: _answers(network, inputs["x"])}
        save(FOLDER / f"{name}.onnx", model, Recorded(inputs, answers, _trace(network, inputs["x"])))


if __name__ == "__main__":
    main()
