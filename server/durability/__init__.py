"""Sequences outlive their streams and their server."""
