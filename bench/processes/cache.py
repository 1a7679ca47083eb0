"""The folder that the rig keeps between runs: models and logs. It knows only where things stand."""

from dataclasses import dataclass
from pathlib import Path

from bench.scenario import model_name


@dataclass(frozen=True)
class Cache:
    """A folder that git ignores and that anyone may delete."""

    root: Path = Path(".bench")

    @property
    def models(self) -> Path:
        """The model repository that Tidegate serves."""
        return self.root / "models"

    @property
    def afternoon(self) -> Path:
        """The same models with their states as inputs and outputs."""
        return self.root / "afternoon"

    @property
    def proofs(self) -> Path:
        """What Tidegate has proved of the models, where a start is not to do it again."""
        return self.root / "proofs"

    @property
    def options(self) -> list[str]:
        """What tells Tidegate of both."""
        return ["--models", str(self.models), "--cache", str(self.proofs)]

    def store(self, server: str) -> Path:
        """Where a server keeps its checkpoints."""
        return self.root / f"{server}.sqlite"

    def served_file(self, hidden: int) -> Path:
        """The file of one model as any tool exports it."""
        return self.models / model_name(hidden) / "1" / "model.onnx"

    def afternoon_file(self, hidden: int) -> Path:
        """The file of one model with its states outside."""
        return self.afternoon / f"{model_name(hidden)}.onnx"

    @property
    def compiled(self) -> Path:
        """Where the echo in C++ is built."""
        return self.root / "compiled"

    @property
    def certificate(self) -> Path:
        """What a server with TLS shows; its key lies beside it."""
        return self.root / "tls" / "cert.pem"

    def log(self, name: str) -> Path:
        """Where a process of the rig writes what it has to say."""
        return self.root / f"{name}.log"
