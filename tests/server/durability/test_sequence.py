"""The life of a sequence as a table: what may follow what, and a sentence where it may not."""

from __future__ import annotations

from itertools import product

import pytest

from server.durability.sequence import Life, Move, after
from server.errors import IllegalMove

L, M = Life, Move
ALIVE = (L.OPEN, L.RUNNING, L.RESUMED)
LEGAL = {
    **{(life, M.STEP): L.RUNNING for life in ALIVE},
    **{(life, M.PARK): L.PARKED for life in (*ALIVE, L.DRAINING)},
    **{(life, M.RESUME): L.RESUMED for life in (*ALIVE, L.PARKED)},
    **{(life, M.DRAIN): L.DRAINING for life in ALIVE},
    **{(life, M.END): L.ENDED for life in (*ALIVE, L.PARKED)},
    **{(life, M.LOSE): L.LOST for life in (*ALIVE, L.PARKED, L.DRAINING)},
}
ILLEGAL = sorted(set(product(L, M)) - LEGAL.keys())


@pytest.mark.parametrize(("life", "move"), LEGAL)
def test_a_legal_move_leads_where_the_table_says(life: Life, move: Move) -> None:
    assert after(life, move) is LEGAL[life, move]


@pytest.mark.parametrize(("life", "move"), ILLEGAL)
def test_an_illegal_move_is_refused_in_one_sentence_that_says_what_is_possible(life: Life, move: Move) -> None:
    with pytest.raises(IllegalMove) as refused:
        after(life, move)
    said = str(refused.value)
    assert said.startswith(f"a sequence that is {life} cannot {move}; it can ")
    possible = [other for other in M if (life, other) in LEGAL]
    assert all(str(other) in said for other in possible)
    assert possible or said.endswith("nothing any more")


def test_nothing_follows_an_end() -> None:
    assert not [at for at in LEGAL if at[0] in (L.ENDED, L.LOST)]
