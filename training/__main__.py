"""`python -m training`."""

import gc
import os
import signal
import sys

_usual = signal.getsignal(signal.SIGINT)
if _usual is signal.default_int_handler:  # Ctrl-C while torch is imported ends the process without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
gc.disable()  # what is imported stays: to look for garbage in it takes a third of a start
from training.command import main  # noqa: E402
from training.fitting import processes  # noqa: E402

gc.enable()
signal.signal(signal.SIGINT, _usual)

if __name__ == "__main__":
    processes.leave(main(sys.argv[1:]))
