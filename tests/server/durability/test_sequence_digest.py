"""What is kept of a resume token: nobody can show one that counts as that of another token's sequence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.durability.sequence import digest_of

RESUME_TOKENS = st.text("a\0", max_size=4)
NAMES = st.text("ab", max_size=2)  # those of tokens have no zero bytes; empty: there is no token


@given(RESUME_TOKENS.filter(lambda text: "\0" not in text), NAMES, RESUME_TOKENS, NAMES)
def test_no_two_pairs_of_a_resume_token_and_a_token_are_the_same(made: str, name: str, shown: str, other: str) -> None:
    assert (digest_of(made, name) == digest_of(shown, other)) == ((made, name) == (shown, other))
