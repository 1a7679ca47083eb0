"""What can go wrong, in our words.

TrainingError
├── ConfigError       a setting is out of range, or two contradict each other
├── DataError         a data file is missing or is not what it should be
├── CheckpointError   a checkpoint cannot be read
├── RunBusy           another process is training with the same config
├── Diverged          the loss is no longer a number
├── Interrupted       somebody stopped the run; a checkpoint holds what was reached
└── ExportRefused     the ONNX file does not compute what torch computes, or does not stream
"""


class TrainingError(Exception):
    """Any failure that is told in one line, without a traceback."""


class ConfigError(TrainingError):
    """A setting is out of range, or two contradict each other."""


class DataError(TrainingError):
    """A data file is missing or is not what it should be."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read."""


class RunBusy(TrainingError):  # noqa: N818 - named after what is
    """Another process is training with the same config."""


class Diverged(TrainingError):  # noqa: N818 - named after what happened
    """The loss is no longer a number."""


class Interrupted(TrainingError):  # noqa: N818 - it is no error of anybody
    """Somebody stopped the run; a checkpoint holds what was reached."""


class ExportRefused(TrainingError):  # noqa: N818 - named after what happened, as the message reads it out
    """The ONNX file does not compute what torch computes, or does not stream."""
