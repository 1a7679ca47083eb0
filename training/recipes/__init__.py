"""What can be trained by name: each a task with its data and its settings."""
