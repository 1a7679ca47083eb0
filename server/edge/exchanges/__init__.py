"""One stream of a client, whatever its protocol: takes its requests, and writes its answers."""
