"""A recurrent cell as a value, and its equations."""
