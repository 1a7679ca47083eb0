"""The life of a sequence as a table: what may follow what, and a sentence where it may not."""

from __future__ import annotations

from itertools import product

import pytest

from server.durability.sequence import Life, Move, after
from server.errors import IllegalMove

L, M = Life, Move
ALIVE = (L.OPEN, L.BRANCHED, L.ASLEEP, L.BUSY, L.CLOSING, L.LEAVING)
LEGAL = {
    **{(life, M.READY): L.OPEN for life in (L.OPENING, L.BRANCHED, L.ASLEEP, L.BUSY)},
    **{(life, M.BRANCH): L.BRANCHED for life in (L.OPENING, L.ASLEEP)},
    **{(life, M.SLEEP): L.ASLEEP for life in (L.OPEN, L.BRANCHED)},
    (L.OPEN, M.TURN): L.BUSY,
    (L.OPEN, M.CLOSE): L.CLOSING,
    **{(life, M.CLOSE): L.LEAVING for life in (L.BRANCHED, L.ASLEEP)},
    (L.BRANCHED, M.FORGET): L.OPEN,
    (L.LEAVING, M.FORGET): L.CLOSING,
    **{(life, M.PARK): L.PARKED for life in (L.CLOSING, L.LEAVING)},
    **{(life, M.END): L.ENDED for life in (L.CLOSING, L.LEAVING)},
    **{(life, M.LOSE): L.LOST for life in ALIVE},
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
    assert not [at for at in LEGAL if at[0] in (L.PARKED, L.ENDED, L.LOST)]
