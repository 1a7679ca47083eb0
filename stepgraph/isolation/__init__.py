"""Model files looked into by a process with limits, and what is kept of that."""
