"""Values as a table of texts writes them. Pure. Training reads tables by the same patterns, in SQL."""

import re

import numpy as np

# Texts by which a table says that nothing was measured, in small letters.
NOTHING = frozenset({"", "na", "n/a", "null", "nan", "nil", "none", "?", "-", ".", "missing"})
# Those of them that mean it also where names are expected.
NAMELESS = frozenset({"", "na", "n/a", "null"})
DECIMAL = r"[+-]?\d*,\d+([eE][+-]?\d+)?"
THOUSANDS = r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?"


def read_number(text: str, delimiter: str = "") -> float:
    """The number that a cell holds, 45 of 45 %.

    `delimiter`: what is between the cells of its table. Where that is no comma, a comma in a number is a decimal one,
    else it stands between thousands; of a text from elsewhere ("") a comma makes no number.

    Raises:
        ValueError: it is none.
    """
    number = text.strip().removesuffix("%").rstrip()
    if delimiter == "," and re.fullmatch(THOUSANDS, number):
        number = number.replace(",", "")
    elif delimiter not in ("", ",") and re.fullmatch(DECIMAL, number):
        number = number.replace(",", ".")
    return float(number)


def is_number(text: str) -> bool:
    """Whether Python writes a number so."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def text_of(given: object) -> str:
    """A value as a table of texts writes it."""
    if isinstance(given, bool | np.bool_):
        return "true" if given else "false"
    if isinstance(given, float | np.floating) and float(given).is_integer():
        return str(int(given))
    return "" if given is None else str(given)
