"""What is served is what was trained."""
