"""A row: one image in progress, with everything that its next evaluation needs."""

from dataclasses import dataclass

import numpy as np

from service.diffusion.plan import Plan
from service.diffusion.start import FREE, start_of
from service.messages import Edit, Parameters
from service.triton.contract import Array, Int32


@dataclass(eq=False, kw_only=True)
class Row:
    """``tokens`` INT32 [L] is x_t after ``evaluation`` evaluations of ``plan``."""

    parameters: Parameters
    image: int
    plan: Plan
    tokens: Int32
    pinned: Int32 | None = None
    """INT32 [L]: the code that a position keeps, or FREE; None: all may change."""
    evaluation: int = 0
    conditions: tuple[Array, ...] | None = None
    """What it is conditioned on and what guidance leads away from: text states FP16 [S, D] or labels INT32 []; none
    for a model without condition. There before the first evaluation."""
    urgent: bool = True
    """Goes before those that are not, when there are more rows than a call carries."""
    place: int = 0
    """When it came to the scheduler: smaller is earlier."""
    begun: bool = False
    """Whether a call has carried it."""
    alone: bool = False
    """Set after a failed call, to find out which row makes it fail."""
    dropped: bool = False
    """Set by whoever no longer wants it: it runs no more, wherever it waits."""

    @property
    def remaining(self) -> int:
        return len(self.plan) - self.evaluation

    def advance(self, tokens: Int32, evaluations: int) -> None:
        """Store the grid that so many more evaluations gave."""
        self.tokens, self.evaluation, self.alone = tokens, self.evaluation + evaluations, False

    def begin(self, edit: Edit, read: Int32 | None, codes: int) -> None:
        """Start from a picture that was ``read`` as tokens, or from codes that are given.

        One that goes on has its pinned codes in its grid already: another device may read the picture otherwise.
        """
        start = start_of(edit, self.parameters.seed, self.image, read, len(self.tokens), codes)
        if self.evaluation:
            self.pinned = np.where(start.pinned == FREE, FREE, self.tokens).astype(np.int32)
        else:
            self.tokens, self.pinned = start.tokens, start.pinned


def masked(tokens: int, codes: int) -> Int32:
    """The grid that every image begins with."""
    return np.full(tokens, codes, np.int32)
