"""onnxruntime: sessions, and steps of many sequences at once."""
