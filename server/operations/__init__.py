"""Start, serve, drain, stop; and the commands and numbers for operators."""
