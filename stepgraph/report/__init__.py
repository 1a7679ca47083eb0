"""What was found in a model file, told to people."""
