"""Where something was made: what has threads and connections of its own does not come along with os.fork()."""

import os


class Home:
    """The process in which it was made."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is still that process."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Raises RuntimeError in any other process."""
        if not self.here:
            raise RuntimeError("this client was made in another process: make one after the fork")
