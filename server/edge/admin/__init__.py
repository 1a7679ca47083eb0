"""The gRPC service tidegate.v1.Admin, for who runs a server."""
