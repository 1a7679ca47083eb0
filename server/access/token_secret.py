"""The secret of a token: 256 random bits in letters and digits with a checksum, of which only the SHA-256 is kept.

No salt and no slow hash: those are for passwords, which can be guessed.
"""

import hashlib
import re
from binascii import crc32
from secrets import token_bytes

_BYTES = 32
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH, _CHECK = 43, 6  # digits of 256 bits, and of the checksum's 32
_FORM = re.compile(rf"tg_([0-9A-Za-z]{{{_LENGTH}}})([0-9A-Za-z]{{{_CHECK}}})")


def make() -> str:
    """A new secret."""
    body = _digits(int.from_bytes(token_bytes(_BYTES), "big"), _LENGTH)
    return f"tg_{body}{_checksum(body)}"


def well_formed(secret: str) -> bool:
    """Whether a text can be a secret: what was cut or mistyped is not looked up."""
    form = _FORM.fullmatch(secret)
    return form is not None and _checksum(form[1]) == form[2]


def digest(secret: str) -> str:
    """What is kept of it, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _digits(crc32(body.encode()), _CHECK)


def _digits(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
