"""What the figures were measured on: they mean nothing without it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime")


def describe() -> dict[str, str]:
    """Name the processor, the system and the versions."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
