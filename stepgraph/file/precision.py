"""In which type a model's weights are kept, where its owner says so: a table [weights] in model.toml."""

from dataclasses import dataclass
from typing import Literal, get_args

Name = Literal["int8", "float16", "bfloat16"]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Precision:
    """A narrower type than float32, and how far an answer may be from the file's for it, in parts of its range."""

    name: Name
    within: float = 0.1
