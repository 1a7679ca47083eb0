"""What each operator of the standard does with the axes of batch and of time, and what a whole graph does by it."""
