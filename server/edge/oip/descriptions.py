"""Models as the Open Inference Protocol and Triton describe them. Translates; decides nothing."""

from collections.abc import Sequence
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from weakref import WeakKeyDictionary

from server.caller import Caller
from server.edge.oip.requests import NAMES
from server.edge.oip.responses import trace_outputs
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.edge.oip.stubs import model_config_pb2
from server.edge.pieces import Joined
from server.repository.entry import Entry, State
from server.repository.repository import Key, Repository
from server.runtime.served_model import ServedModel
from server.settings import Settings
from stepgraph.rewriting.ports import Port

EXTENSIONS = "sequence", "sequence(string_id)", "model_repository", "model_configuration", "statistics"
_PLATFORM, _READY = "onnxruntime_onnx", "READY"
_STATES = {State.LOADING: "LOADING", State.READY: _READY, State.REFUSED: "UNAVAILABLE"}
_KINDS = {name: getattr(model_config_pb2, f"TYPE_{name}") for name in NAMES.values()}


class Descriptions:
    """What is said of the server and its models: made once, and kept as bytes until it changes."""

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._repository = repository
        self._settings = settings
        self._metadata: WeakKeyDictionary[ServedModel, bytes] = WeakKeyDictionary()
        self._configs: WeakKeyDictionary[ServedModel, bytes] = WeakKeyDictionary()
        self._of: tuple[Sequence[Entry], Sequence[Key]] = (), ()
        self._rows: list[tuple[str, bool, bytes]] = []  # of the index of these
        self._index = Joined()

    @cached_property
    def server(self) -> bytes:
        """A ServerMetadataResponse."""
        made = pb.ServerMetadataResponse(name="tidegate", version=_release(), extensions=EXTENSIONS)
        return made.SerializeToString()

    def metadata(self, model: ServedModel) -> bytes:
        """A ModelMetadataResponse. Its versions are those that are served now."""
        if model not in self._metadata:
            self._metadata[model] = _metadata(model).SerializeToString()
        numbers = sorted({m.version for m in self._repository.served() if m.name == model.name})
        return self._metadata[model] + pb.ModelMetadataResponse(versions=map(str, numbers)).SerializeToString()

    def config(self, model: ServedModel) -> bytes:
        """A ModelConfigResponse."""
        if model not in self._configs:
            self._configs[model] = _config(model, self._settings).SerializeToString()
        return self._configs[model]

    def index(self, caller: Caller, *, only_ready: bool) -> bytes:
        """Every version that the caller may see, with its state and, where it was refused, the reason."""
        entries, withdrawn = self._repository.entries(), self._repository.withdrawn()
        if (entries, withdrawn) != self._of:
            self._of, self._rows = (entries, withdrawn), _rows(entries, withdrawn)
        sees = cache(caller.sees)
        return self._index.of([row for name, ready, row in self._rows if sees(name) and (ready or not only_ready)])


def _rows(entries: Sequence[Entry], withdrawn: Sequence[Key]) -> list[tuple[str, bool, bytes]]:
    """The name of each version, whether it is ready, and a RepositoryIndexResponse of it alone."""
    states = {(e.found.name, e.found.version): _state(e) for e in entries}
    states |= dict.fromkeys(withdrawn, ("UNAVAILABLE", "unloaded"))
    rows = []
    for (name, number), (state, reason) in sorted(states.items()):
        index = pb.RepositoryIndexResponse.ModelIndex(name=name, version=str(number), state=state, reason=reason)
        rows.append((name, state == _READY, pb.RepositoryIndexResponse(models=[index]).SerializeToString()))
    return rows


def _metadata(model: ServedModel) -> pb.ModelMetadataResponse:
    """Names, types and shapes; the first axis is that of rows. States and gates are not listed: see `_config`."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    inputs, outputs = (
        [tensor(name=port.name, datatype=_type(port), shape=(-1, *port.row)) for port in ports]
        for ports in (model.graph.inputs, model.graph.outputs)
    )
    return pb.ModelMetadataResponse(name=model.name, platform=_PLATFORM, inputs=inputs, outputs=outputs)


def _config(model: ServedModel, settings: Settings) -> pb.ModelConfigResponse:
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
