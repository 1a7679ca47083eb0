"""Recipes whose sequences are drawn at random: nothing is read."""
