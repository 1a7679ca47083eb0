from __future__ import annotations

import re

from server.access import token_secret


def test_a_secret_has_256_random_bits_in_letters_and_digits_and_a_checksum() -> None:
    made = {token_secret.make() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("tg_[0-9A-Za-z]{49}", one) for one in made)
    assert 62**43 > 2**256 > 62**42


def test_what_was_cut_or_mistyped_is_known_to_be_no_secret() -> None:
    made = token_secret.make()
    other = "0" if made[20] != "0" else "1"
    wrong = ["", "tg_", made[:-1], made + "0", made.replace("tg_", "tk_"), made[:20] + other + made[21:]]
    assert [token_secret.well_formed(one) for one in (made, *wrong)] == [True, *[False] * len(wrong)]


def test_of_a_secret_its_sha256_is_kept() -> None:
    assert token_secret.digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
