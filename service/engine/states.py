"""Text states that are kept, for prompts that come again and for the null, which every guided request needs."""

from service.engine.prompts import Tokenised
from service.triton.contract import Float16

KEPT_BYTES = 2**24
"""Some 900 texts of the bundled model, 200 of CLIP's."""


class KnownStates:
    """The states [S, D] of those texts that were last asked for, as many as have room."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.kept_bytes = kept_bytes
        self.states: dict[bytes, Float16] = {}

    def get(self, text: Tokenised) -> Float16 | None:
        states = self.states.pop(text.key, None)
        if states is not None:
            self.states[text.key] = states  # the last one now
        return states

    def keep(self, text: Tokenised, states: Float16) -> None:
        self.states[text.key] = states.copy()  # alone, and not as a part of all that was encoded with it
        while len(self.states) * states.nbytes > self.kept_bytes:
            del self.states[next(iter(self.states))]
