"""The pipeline: fits recurrent networks on a person's own data and writes ONNX files into `models/`.

Knows nothing of the server that may read those files.
"""

import os

# onnxruntime reads this when it is imported: since 1.29 it sends telemetry by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
