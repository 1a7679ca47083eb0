"""`python -m training`."""

import gc
import sys

gc.disable()  # what is imported stays: to look for garbage in it takes a third of a start
from training.command import main  # noqa: E402
from training.fitting import processes  # noqa: E402

gc.enable()

if __name__ == "__main__":
    processes.leave(main(sys.argv[1:]))
