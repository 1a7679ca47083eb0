"""The one place where our errors become gRPC statuses, with a google.rpc.ErrorInfo (domain "tidegate")."""

from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.errors import TidegateError
from tidegate.v1 import error_pb2

DOMAIN = "tidegate"

_NOT_FOUND = {error_pb2.REASON_UNKNOWN_MODEL, error_pb2.REASON_UNKNOWN_VERSION, error_pb2.REASON_UNKNOWN_HANDLE}
_UNAVAILABLE = {error_pb2.REASON_MODEL_NOT_READY, error_pb2.REASON_DRAINING}
_EXHAUSTED = {
    error_pb2.REASON_TOO_LARGE,
    error_pb2.REASON_TOO_MANY_SEQUENCES,
    error_pb2.REASON_TOO_MANY_STREAMS,
}
_PRECONDITION = {error_pb2.REASON_MODEL_REFUSED, error_pb2.REASON_HANDLE_IN_USE, error_pb2.REASON_WRONG_STEP}


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: TidegateError) -> NoReturn:
    """Ends a call with the status that stands for `error`."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason_name(error.reason), domain=DOMAIN))
    status = rpc_status.to_status(status_pb2.Status(code=_code(error.reason), message=str(error), details=[info]))
    await context.abort(status.code, status.details, status.trailing_metadata)


def reason_name(reason: int) -> str:
    """The stable word for a reason: WRONG_SHAPE."""
    return error_pb2.Reason.Name(reason).removeprefix("REASON_")


def _code(reason: int) -> int:
    for reasons, code in (
        (_NOT_FOUND, code_pb2.NOT_FOUND),
        (_UNAVAILABLE, code_pb2.UNAVAILABLE),
        (_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED),
        (_PRECONDITION, code_pb2.FAILED_PRECONDITION),
        ({error_pb2.REASON_INTERNAL}, code_pb2.INTERNAL),
    ):
        if reason in reasons:
            return int(code)
    return int(code_pb2.INVALID_ARGUMENT)
