"""Operators that slide a window over an axis, and those that may leave elements of an axis out."""

SLIDING = frozenset(
    {"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "FusedConv", "LpPool", "MaxPool", "QLinearConv"}
)
SHORTENING = SLIDING - {"ConvTranspose"} | {"STFT", "Slice"}  # without padding, of as many fewer as the file says
