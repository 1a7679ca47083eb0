"""What can go wrong in the demonstration."""


class DemoError(Exception):
    """A part of it failed; one sentence says which, and where more can be read."""
