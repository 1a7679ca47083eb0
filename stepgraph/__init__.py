"""An ONNX file in, one proved step with its gates out. Knows no sequence and no server."""

import os

# onnxruntime sends telemetry by default from 1.29 on, and reads this once, when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
