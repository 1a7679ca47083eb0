"""What looks back over steps, as state: which elements of which tensors, and the nodes cut to one step."""
