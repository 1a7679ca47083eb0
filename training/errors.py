"""What can go wrong, in our words.

TrainingError
├── ConfigError       a setting is out of range, or two contradict each other
├── DataError         a data file is missing or is not what it should be
├── CheckpointError   a checkpoint cannot be read
├── RunBusy           another process is training with the same config
├── Diverged          the loss is no longer a number
├── Interrupted       the run was stopped; a checkpoint holds what was reached
└── ExportRefused     the ONNX file does not compute what torch computes, or does not stream
"""


class TrainingError(Exception):
    """Any failure that is shown in one line, without a traceback."""


class ConfigError(TrainingError):
    """A setting is out of range, or two contradict each other."""


class DataError(TrainingError):
    """A data file is missing or is not what it should be."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read."""


class RunBusy(TrainingError):
    """Another process is training with the same config."""


class Diverged(TrainingError):
    """The loss is no longer a number."""


class Interrupted(TrainingError):
    """The run was stopped; a checkpoint holds what was reached."""


class ExportRefused(TrainingError):
    """The ONNX file does not compute what torch computes, or does not stream."""
