"""Model files examined by a process with limits, and the cache of the outcomes."""
