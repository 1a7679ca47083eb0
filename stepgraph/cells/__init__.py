"""A cell as a value, and its equations: one file for each cell, all of them listed in `kinds`."""
