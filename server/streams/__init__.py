"""One client's sequences, without gRPC."""
