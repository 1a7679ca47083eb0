"""Models as the Open Inference Protocol and Triton describe them. Translates; decides nothing."""

from importlib.metadata import PackageNotFoundError, version

from server.caller import Caller
from server.edge.oip.requests import NAMES
from server.edge.oip.responses import trace_outputs
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.edge.oip.stubs import model_config_pb2
from server.repository.entry import Entry, State
from server.repository.repository import Repository
from server.runtime.served_model import ServedModel
from server.settings import Settings
from stepgraph.rewriting.ports import Port

EXTENSIONS = "sequence", "sequence(string_id)", "model_repository", "model_configuration", "statistics"
_PLATFORM, _READY = "onnxruntime_onnx", "READY"
_STATES = {State.LOADING: "LOADING", State.READY: _READY, State.REFUSED: "UNAVAILABLE"}
_KINDS = {name: getattr(model_config_pb2, f"TYPE_{name}") for name in NAMES.values()}


def server() -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name="tidegate", version=_release(), extensions=EXTENSIONS)


def metadata(model: ServedModel, repository: Repository) -> pb.ModelMetadataResponse:
    """Names, types and shapes; the first axis is that of rows. States and gates are not listed: see `config`."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    inputs, outputs = (
        [tensor(name=port.name, datatype=_type(port), shape=(-1, *port.row)) for port in ports]
        for ports in (model.graph.inputs, model.graph.outputs)
    )
    versions = [str(number) for number in sorted({m.version for m in repository.served() if m.name == model.name})]
    return pb.ModelMetadataResponse(
        name=model.name, versions=versions, platform=_PLATFORM, inputs=inputs, outputs=outputs
    )


def config(model: ServedModel, settings: Settings) -> pb.ModelConfigResponse:
    """What Triton's clients look for: that it takes sequences, and how many rows a request may have.

    `trace_outputs` among the parameters names what may be asked for beside the outputs.
    """
    made = model_config_pb2.ModelConfig(
        name=model.name,
        platform=_PLATFORM,
        backend="onnxruntime",
        max_batch_size=settings.max_batch,
        input=[_input(port) for port in model.graph.inputs],
        output=[_output(port) for port in model.graph.outputs],
        version_policy=model_config_pb2.ModelVersionPolicy(
            latest=model_config_pb2.ModelVersionPolicy.Latest(num_versions=settings.keep_versions)
        ),
        sequence_batching=model_config_pb2.ModelSequenceBatching(
            max_sequence_idle_microseconds=int(settings.idle_seconds * 1e6),
            oldest=model_config_pb2.ModelSequenceBatching.StrategyOldest(
                max_candidate_sequences=min(settings.max_sequences, 2**31 - 1)
            ),
        ),
    )
    made.parameters["trace_outputs"].string_value = ", ".join(trace_outputs(model.graph))
    return pb.ModelConfigResponse(config=made)


def index(repository: Repository, caller: Caller, *, only_ready: bool) -> pb.RepositoryIndexResponse:
    """Every version that the caller may see, with its state and, where it was refused, the reason."""
    states = {(e.found.name, e.found.version): _state(e) for e in repository.entries()}
    states |= dict.fromkeys(repository.withdrawn(), ("UNAVAILABLE", "unloaded"))
    answer = pb.RepositoryIndexResponse()
    for (name, number), (state, reason) in sorted(states.items()):
        if caller.sees(name) and (state == _READY or not only_ready):
            answer.models.add(name=name, version=str(number), state=state, reason=reason)
    return answer


def _state(entry: Entry) -> tuple[str, str]:
    """As Triton calls it, and the reason."""
    return _STATES[entry.state], str(entry.refusal or "")


def _input(port: Port) -> model_config_pb2.ModelInput:
    return model_config_pb2.ModelInput(name=port.name, data_type=_KINDS[_type(port)], dims=port.row)


def _output(port: Port) -> model_config_pb2.ModelOutput:
    return model_config_pb2.ModelOutput(name=port.name, data_type=_KINDS[_type(port)], dims=port.row)


def _type(port: Port) -> str:
    return NAMES[port.dtype.newbyteorder("<")]


def _release() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0"
