"""Reports of model files, as values and as pages of text."""
