"""A model file as it lies on disk, looked at before anything is made of it."""
