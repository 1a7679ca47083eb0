"""The Tidegate server: recurrent ONNX models as streams. Run it with `python -m server`."""

import os

# onnxruntime sends telemetry by default from 1.29 on, and reads this once, when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# gRPC's core writes a line of its own for each bad call; what matters of it comes as an exception or a status.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
