"""What Tidegate is measured beside: an empty echo, and the server that one would write in an afternoon."""
