"""`python -m training`."""

import sys

from training.command import main
from training.fitting import processes

if __name__ == "__main__":
    status = main(sys.argv[1:])
    if processes.started_by_torchrun():
        processes.leave(status)
    sys.exit(status)
