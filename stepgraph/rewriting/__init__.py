"""A model rewritten to take one step."""
