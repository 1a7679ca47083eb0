"""A table, read and looked at: what its columns are, and what stands in the way."""
