import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

import tidegate
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.status import explain


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, tidegate.ConnectionLost, r"no Tidegate server answers at here:1 \(gone\)"),
        (grpc.StatusCode.CANCELLED, tidegate.ConnectionLost, "cancelled"),
        (grpc.StatusCode.INTERNAL, tidegate.ConnectionLost, r"here:1 broke \(INTERNAL: gone\)"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, tidegate.TimedOut, "no answer from here:1"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, tidegate.BadInput, "TOO_LARGE"),
        (grpc.StatusCode.UNIMPLEMENTED, tidegate.ProtocolError, "does not speak"),
        (grpc.StatusCode.UNAUTHENTICATED, tidegate.AccessDenied, "UNAUTHENTICATED"),
    ],
)
def test_a_status_without_a_reason_is_told_by_its_code(
    code: grpc.StatusCode, kind: type[tidegate.TidegateError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        raise explain(AioRpcError(code, Metadata(), Metadata(), "gone"), Endpoint("here:1", "here:1"))
