"""The protocol `tidegate.v1`."""
