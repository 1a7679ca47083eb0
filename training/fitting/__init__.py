"""A fit: the loop, and what is kept and shown of it."""
