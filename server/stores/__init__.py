"""Where checkpoints outlive a server."""
