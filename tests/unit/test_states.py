"""Text states that are kept: those that were asked for last, in the room that there is."""

import numpy as np

from service.engine.prompts import Tokenised
from service.engine.states import KnownStates

ONES = np.ones((2, 4), np.float16)


def text(word: int) -> Tokenised:
    return Tokenised(np.full(3, word, np.int32), np.ones(3, np.int32))


def test_what_was_not_asked_for_longest_makes_room() -> None:
    known = KnownStates(kept_bytes=2 * ONES.nbytes)
    known.keep(text(1), ONES)
    known.keep(text(2), 2 * ONES)
    assert known.get(text(1)) is not None
    known.keep(text(3), 3 * ONES)
    found = {word: known.get(text(word)) for word in (1, 2, 3)}
    assert found[2] is None
    assert [states[0, 0] for states in found.values() if states is not None] == [1, 3]


def test_texts_that_differ_in_their_mask_only_are_two() -> None:
    known = KnownStates()
    known.keep(text(1), ONES)
    assert known.get(Tokenised(text(1).ids, np.zeros(3, np.int32))) is None


def test_only_the_states_themselves_are_kept() -> None:
    """Not the answer of the call that they are a part of."""
    known, answer = KnownStates(), np.ones((8, 2, 4), np.float16)
    known.keep(text(1), answer[3])
    kept = known.get(text(1))
    assert kept is not None
    assert kept.base is None
