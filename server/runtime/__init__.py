"""Steps of many sequences, run together."""
