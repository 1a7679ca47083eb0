"""Waits and sends: the same protocol over threads and over asyncio."""
