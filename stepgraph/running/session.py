"""Makes and runs onnxruntime sessions: one thread, quiet, on the CPU. The only file that imports onnxruntime."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime

from stepgraph.errors import ModelRefused, StepFailed
from stepgraph.file import tensors
from stepgraph.graphs import weights

_DEADLY = ["MatmulTransposeFusion"]  # onnxruntime 1.32 dies in it where a Transpose feeds a MatMul in half precision
_STARVED = ("bad_alloc", "bad allocation", "Failed to allocate memory")
_FATAL_ONLY = 4  # every error comes as an exception too; nothing is written past our logs


class Session(Protocol):
    """What we use of onnxruntime.InferenceSession."""

    def run(
        self, output_names: Sequence[str], input_feed: Mapping[str, np.ndarray], run_options: None
    ) -> list[np.ndarray]: ...
    def run_with_iobinding(self, iobinding: Any, run_options: None) -> None: ...  # noqa: ANN401 - onnxruntime
    def io_binding(self) -> Any: ...  # noqa: ANN401 - says nothing of its types

    _sess: Any  # the same without Python around it


class Bound:
    """A session over arrays that are filled and read again and again, which saves a small run a fifth of its time.

    onnxruntime's own Python around a run, which looks for captured graphs of WebGPU, takes another tenth of it.
    """

    def __init__(self, session: Session, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        self._arrays = feeds, outputs  # onnxruntime knows their addresses only
        places = session.io_binding()
        for bind, arrays in ((places.bind_input, feeds), (places.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        try:
            self._run, self._places = session._sess.run_with_iobinding, places._iobinding  # noqa: SLF001 # see above
        except AttributeError:  # another release of onnxruntime has other names for it
            self._run, self._places = session.run_with_iobinding, places

    def run(self) -> None:
        """Computes what the outputs hold from what the inputs hold. Raises as `run`."""
        try:
            self._run(self._places, None)
        except Exception as error:
            raise _in_words(error) from error


def create(model: onnx.ModelProto, kept: Mapping[str, np.ndarray] | None = None) -> Session:
    """A session over `model`, computing in the caller's thread alone.

    `kept` are large initialisers, which must be kept as long as the session; by default those of `graphs.weights`.
    These are not copied, and such a session computes half as fast; onnxruntime lays `kept` out anew for itself.
    """
    options = onnxruntime.SessionOptions()
    large = weights.of(model) if kept is None else kept
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in large.values()]
    if large:
        options.add_external_initializers(list(large), values)  # for what is computed from them at load
    for name, value in zip(large, values, strict=True):
        options.add_initializer(name, value)  # for what runs: without a copy
    if large and kept is None:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        session: Session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_DEADLY if tensors.mentions(model, onnx.TensorProto.FLOAT16) else None,
        )
    except Exception as error:  # onnxruntime raises a type of its own for each status
        raise ModelRefused(f"onnxruntime cannot load the file: {_first_line(error)}") from error
    return session


def run(session: Session, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """One run, without onnxruntime's own Python around it, if this release has it under the name that we know.

    Raises:
        StepFailed: the graph could not compute it, for example because a token is out of range.
        MemoryError: it takes more memory than there is.
    """
    inner: Session = getattr(session, "_sess", session)
    try:
        return inner.run(outputs, feeds, None)
    except Exception as error:
        raise _in_words(error) from error


def _in_words(error: Exception) -> MemoryError | StepFailed:
    if is_starved(error):
        return MemoryError(_first_line(error))
    return StepFailed(f"the model could not compute this: {_first_line(error)}")


def is_tensor(value: object) -> bool:
    return isinstance(value, np.ndarray)


def is_starved(error: BaseException) -> bool:
    """Whether an error means that memory ran out; onnxruntime says so in words only."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _STARVED)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
