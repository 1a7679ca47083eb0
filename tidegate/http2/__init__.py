"""HTTP/2 without I/O: frames, which the server uses too, and a client's call of gRPC over a connection of its own."""
