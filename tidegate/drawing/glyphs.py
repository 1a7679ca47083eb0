"""How one number of a network's inside looks: a gate as open or closed, a state as a signed mark. Pure."""

import re
from dataclasses import dataclass

import numpy as np

OPEN = 0.9  # above it a gate counts as open, as in the lesson's figure
CLOSED = 0.1  # below it as closed

_SHADES = "░▒▓"
_ASCII_SHADES = ".:+"
_RISING = "▁▂▃▄▅▆▇█"
_HANGING = "▔▔▔▔▀▀▀█"
_BEYOND = 1.25  # a bar for a state further out than this ends in a mark
_NOTHING = 0.02  # a state closer to 0 than this is drawn as nothing

# Colours of the 256-colour palette: a gate from closed to open, a state from negative to positive.
_GATE_RAMP = (240, 66, 72, 78, 84)
_NEGATIVE, _POSITIVE = 75, 215
_RESET = "\x1b[0m"
_COLOURS = re.compile("\x1b\\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Style:
    """What the place that is drawn on can show: colour, and more than ASCII."""

    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, colour: int) -> str:
        return f"\x1b[38;5;{colour}m{text}{_RESET}" if self.colour else text

    def dim(self, text: str) -> str:
        return f"\x1b[2m{text}{_RESET}" if self.colour else text

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}{_RESET}" if self.colour else text


def gate(value: float, style: Style) -> str:
    """One gate, one character: o open (> 0.9), - closed (< 0.1), three shades between; ? for no number."""
    if not np.isfinite(value):
        return "?"
    return style.paint(_gate_mark(value, style), _GATE_RAMP[_level(value, len(_GATE_RAMP))])


def state(value: float, style: Style) -> str:
    """One state of about -1 to 1, one character: it rises if positive and hangs if negative. ASCII: # + . ~ =."""
    if not np.isfinite(value):
        return "?"
    if abs(value) < _NOTHING:
        return style.dim("·" if style.unicode else ".")
    return style.paint(_state_mark(value, style), _sign(value))


def bar(value: float, style: Style, half: int = 4) -> str:
    """One state of about -1 to 1 as a bar to the left or the right of zero, 2 * half + 1 characters wide."""
    if not np.isfinite(value):
        return "?".center(2 * half + 1)
    full, part, zero, beyond = ("█", "▌▐", "│", "»«") if style.unicode else ("#", "", "|", "><")
    side = int(value < 0)
    length = min(2 * half, round(abs(value) * 2 * half))  # in half characters
    run = full * (length // 2) + (part[side] if part and length % 2 else "")
    if abs(value) > _BEYOND:
        run = full * (half - 1) + beyond[side]
    blank = " " * (half - len(run))
    if value < 0:
        return blank + style.paint(run[::-1], _NEGATIVE) + style.dim(zero) + " " * half
    return " " * half + style.dim(zero) + style.paint(run, _POSITIVE) + blank


def shade(share: float, style: Style) -> str:
    marks = " ░▒▓█" if style.unicode else " .:+#"
    return marks[min(len(marks) - 1, round(share * (len(marks) - 1)))]


def visible_length(text: str) -> int:
    return len(_COLOURS.sub("", text))


def _gate_mark(value: float, style: Style) -> str:
    if value > OPEN:
        return "o"
    if value < CLOSED:
        return "-"
    shades = _SHADES if style.unicode else _ASCII_SHADES
    return shades[_level((value - CLOSED) / (OPEN - CLOSED), len(shades))]


def _state_mark(value: float, style: Style) -> str:
    if style.unicode:
        return (_RISING if value > 0 else _HANGING)[_level(abs(value), len(_RISING))]
    return ("+#" if value > 0 else "~=")[_level(abs(value), 2)]


def _sign(value: float) -> int:
    return _POSITIVE if value > 0 else _NEGATIVE


def _level(share: float, levels: int) -> int:
    return max(0, min(levels - 1, int(share * levels)))
