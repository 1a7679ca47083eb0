"""Failed gRPC calls as errors of this package. The only place that reads status codes."""

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut, refused
from tidegate.transport.endpoint import Endpoint

_DOMAIN = "tidegate"
NOT_WRITTEN = "Internal error from Core"  # what grpc.aio says of a call that had ended when it wrote to it


class Unexplained(ConnectionLost):
    """A call ended, and gRPC has lost the reason: another attempt gets it."""


def explain(error: grpc.RpcError, address: Endpoint) -> TidegateError:
    """What a failed call means: first by the server's own ErrorInfo, then by the status code."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return ConnectionLost(f"the connection to {address} broke (UNKNOWN: {error})")
    code, details = error.code(), error.details() or "no details"
    reason, retry_after = _told(error)
    if reason == "UNAUTHENTICATED" and address.token is None:
        details += ": connect with token_file="
    if reason:
        return refused(reason, details, retry_after=retry_after)
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return ConnectionLost(address.why_not(details))
        case grpc.StatusCode.CANCELLED:
            return ConnectionLost(f"the call to {address} was cancelled ({details})")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimedOut(f"no answer from {address} in the given time")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            advice = "send a long sequence with sequence(...).chunk, which cuts it into messages"
            return refused("TOO_LARGE", f"a message is larger than one side takes ({details}): {advice}")
        case grpc.StatusCode.UNIMPLEMENTED:
            return ProtocolError(f"the server at {address} does not speak tidegate.v1 ({details})")
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN | grpc.StatusCode.ABORTED:
            # A fault of the transport: Tidegate's own errors carry a reason.
            kind = Unexplained if details == NOT_WRITTEN else ConnectionLost
            return kind(f"the connection to {address} broke ({code.name}: {details})")
        case _:
            return refused(code.name, f"the call to {address} failed: {details}")


def _told(error: grpc.Call | grpc.aio.AioRpcError) -> tuple[str, float]:
    """The reason in the status details, "" if there is none, and in how many seconds the same may be met."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details contradict the code: then the code is what we have
        return "", 0.0
    reason, info, retry = "", ErrorInfo(), RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info) and info.domain == _DOMAIN:
            reason = str(info.reason)
        detail.Unpack(retry)
    return reason, retry.retry_delay.ToTimedelta().total_seconds()
