"""A client's side of a sequence in the words of the Open Inference Protocol; what it sends, and what it waits for."""

from secrets import randbits

from bench.client.traffic import WrongAnswerError, chunks
from bench.scenario import FEATURES, OUTPUTS, Scenario
from server.edge.oip.stubs import grpc_service_pb2 as pb


class InferenceSequence:
    """One sequence, one step or one chunk in a request; see Traffic. Its first request begins it."""

    method = "/inference.GRPCInferenceService/ModelStreamInfer"

    def __init__(self, scenario: Scenario, handle: int) -> None:
        self._handle, self._steps = handle, scenario.steps
        self._chunks = list(chunks(scenario.steps, handle))
        self._request = pb.ModelInferRequest(model_name=scenario.model, id=str(handle), raw_input_contents=[b""])
        self._request.inputs.add(name="x", datatype="FP32", shape=(1, scenario.steps, FEATURES))
        self._request.parameters["sequence_id"].int64_param = randbits(62) + 1
        self._sent = 0

    def opening(self) -> None:
        """See Traffic: nothing is said before."""

    def send(self) -> bytes:
        self._request.parameters["sequence_start"].bool_param = not self._sent
        self._request.raw_input_contents[0] = self._chunks[self._sent % len(self._chunks)]
        self._sent += 1
        return self._request.SerializeToString()

    def parse(self, message: bytes) -> pb.ModelStreamInferResponse:
        return pb.ModelStreamInferResponse.FromString(message)

    def concerned(self, response: pb.ModelStreamInferResponse) -> int:
        return int(response.infer_response.id)

    def take(self, response: pb.ModelStreamInferResponse) -> bool:
        answer = response.infer_response
        step = (self._sent - 1) * self._steps
        right = answer.parameters["sequence_step"].int64_param == step and not response.error_message
        if not right or len(answer.raw_output_contents[0]) != 4 * OUTPUTS * self._steps:
            raise WrongAnswerError(f"sequence {self._handle} waited for step {step}, got {response}")
        return True

    def closing(self) -> None:
        """See Traffic: it is parked once its stream ends."""
