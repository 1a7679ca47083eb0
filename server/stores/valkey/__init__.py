"""A store in Valkey or Redis."""
