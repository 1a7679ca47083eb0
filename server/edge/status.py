"""Turns errors into gRPC statuses with a google.rpc.ErrorInfo (domain "tidegate"); no other file does."""

import asyncio
import logging
from collections.abc import Callable
from math import ceil
from typing import Any, NoReturn

import grpc
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.errors import Reason, TidegateError, Unauthenticated

log = logging.getLogger(__name__)

DOMAIN = "tidegate"

_CODES = {
    code_pb2.NOT_FOUND: {Reason.UNKNOWN_MODEL, Reason.UNKNOWN_VERSION, Reason.UNKNOWN_HANDLE},
    code_pb2.UNAVAILABLE: {Reason.MODEL_NOT_READY, Reason.DRAINING},
    code_pb2.RESOURCE_EXHAUSTED: {
        Reason.TOO_LARGE,
        Reason.TOO_MANY_SEQUENCES,
        Reason.TOO_MANY_STREAMS,
        Reason.TOO_MANY_OF_OWNER,
        Reason.STORE_FULL,
        Reason.TOO_FAST,
    },
    code_pb2.FAILED_PRECONDITION: {Reason.MODEL_REFUSED, Reason.HANDLE_IN_USE, Reason.WRONG_STEP},
    code_pb2.ALREADY_EXISTS: {Reason.SEQUENCE_RUNNING},
    code_pb2.UNAUTHENTICATED: {Reason.UNAUTHENTICATED},
    code_pb2.PERMISSION_DENIED: {Reason.PERMISSION_DENIED},
    code_pb2.INTERNAL: {Reason.INTERNAL},
}  # of other reasons INVALID_ARGUMENT


class Told:
    """Ends the call with the status for an error of the block, which is noted before.

    A fault of the server is logged, and told without details.
    """

    __slots__ = ("_context", "_note")

    def __init__(
        self,
        context: Any,  # noqa: ANN401 # gRPC's, whose type parameters differ
        note: Callable[[TidegateError], None] = lambda _: None,
    ) -> None:
        self._context = context
        self._note = note

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError | grpc.aio.UsageError):
            return
        if not isinstance(error, TidegateError):
            log.error("a call failed", exc_info=error)
            error = TidegateError("the server failed; its log has the details")
        self._note(error)
        await abort(self._context, error)


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: TidegateError) -> NoReturn:
    if error.reason is Reason.UNSPECIFIED:  # nothing was refused: the client may connect again
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    if isinstance(error, Unauthenticated):
        await asyncio.sleep(error.delay)
    status = status_pb2.Status(code=_code(error.reason), message=str(error))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason_name(error.reason), domain=DOMAIN))
    if error.retry_after:
        wait = duration_pb2.Duration()
        wait.FromMilliseconds(retry_after_ms(error))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=wait))
    ends = rpc_status.to_status(status)
    await context.abort(ends.code, ends.details, ends.trailing_metadata)


def retry_after_ms(error: TidegateError) -> int:
    return ceil(error.retry_after * 1e3)


def reason_name(reason: Reason) -> str:
    """The stable word for a reason: WRONG_SHAPE."""
    return Reason(reason).name


def _code(reason: Reason) -> int:
    return next((int(code) for code, reasons in _CODES.items() if reason in reasons), code_pb2.INVALID_ARGUMENT)
