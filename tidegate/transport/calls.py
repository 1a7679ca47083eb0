"""The unary calls as messages: what both clients ask and how they read what comes. No call is made here."""

import math

from tidegate.answers import Prediction
from tidegate.errors import ProtocolError, refused
from tidegate.inputs import InputLayout, Inputs
from tidegate.messages import read_layout, read_outputs, read_tensor
from tidegate.model import Model
from tidegate.trace import Trace
from tidegate.v1 import model_pb2, tidegate_pb2
from tidegate.wire import WireError

# Answers may be larger than gRPC's default of 4 MiB. A server that comes back is found within two seconds, and one that
# no longer answers is noticed within half a minute.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def limit(timeout: float | None, default: float | None) -> float | None:
    """The seconds a call may take: its own limit, else the client's. math.inf is no limit, and so is None for both."""
    chosen = default if timeout is None else timeout
    return None if chosen is None or math.isinf(chosen) else chosen


def check_window(window: int) -> None:
    if window < 1:
        raise ValueError(f"window={window}: at least one step has to be in flight")


def predict_request(model: Model, values: Inputs, trace: Trace, seed: int | None) -> tidegate_pb2.PredictRequest:
    request = tidegate_pb2.PredictRequest(model=model.name, version=model.version, trace=trace.message(), seed=seed)
    inputs_of(model).block(values).write(request)
    return request


def inputs_of(model: Model) -> InputLayout:
    """What a model takes, which a server says only of one that is ready. Raises ModelNotReady of any other."""
    return InputLayout(ready(model).inputs)


def ready(model: Model) -> Model:
    """Raises ModelNotReady: it is not."""
    if model.status != "ready":
        reason = "MODEL_REFUSED" if model.status == "refused" else "MODEL_NOT_READY"
        raise refused(reason, f"model {model.name!r} is {model.status}: {model.reason or 'try again later'}")
    return model


def prediction(response: tidegate_pb2.PredictResponse, trace: Trace) -> Prediction:
    outputs = read_outputs(response.outputs)
    return Prediction(
        outputs=outputs,
        trace=read_tensor(response.trace) if response.HasField("trace") else None,
        layout=read_layout(response.columns, trace.every),
        first_step=0,
        count=len(next(iter(outputs.values()))),
        model=response.model,
        version=response.version,
    )


def read_model(message: model_pb2.Model) -> Model:
    """What a server says of a model. Raises ProtocolError."""
    try:
        return Model.read(message)
    except WireError as error:
        raise ProtocolError(f"the server describes {message.name!r} in a way unknown here: {error.message}") from error
