"""Start, serve, drain, stop; and what an operator runs."""
