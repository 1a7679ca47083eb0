"""What a model file means: its axes, states and loops."""
