"""Requests and crowds that cost a server much."""
