"""Runs steps of many sequences together."""
