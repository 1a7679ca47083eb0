"""Proves that a step graph computes what its original file computes."""
