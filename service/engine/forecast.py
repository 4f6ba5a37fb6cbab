"""How long a job will take beside the others, and how many evaluations its pictures can have to be done in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace

from service.engine.scheduler import PATIENT_FIRST_EVERY

MARGIN = 1.25
"""Left for what nobody knows: who else comes, the files, the last word to the queue."""
LEAST_SHARE = 4
"""No picture has fewer than one in so many of the evaluations that were asked for: one of a single evaluation is hardly
a picture."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one job, as things are now. Seconds of Triton: ``evaluation_s`` of one evaluation in a call as large as the
    next, ``around_s`` of all that is no evaluation.

    ``ahead``: evaluations left of each picture that goes before it where a call has no room for all; ``yields``: it is
    left out of one call in PATIENT_FIRST_EVERY.
    """

    rows: int
    max_batch: int
    evaluation_s: float
    around_s: float = 0.0
    ahead: Sequence[int] = ()
    yields: bool = False

    def calls(self, evaluations: int) -> int:
        """Until each of its pictures has had so many. New ones are in the next call; then the oldest keep their places
        until they are done, and the others wait for one to be free."""
        places = [0] * self.max_batch
        for more in (*self.ahead, *[evaluations - 1] * self.rows):
            ended = heapreplace(places, places[0] + more) + more
        return -(-self.rows // self.max_batch) + (ended if evaluations > 1 else 0)

    def seconds(self, evaluations: int) -> float:
        share = (PATIENT_FIRST_EVERY - 1) / PATIENT_FIRST_EVERY if self.yields else 1.0
        return self.around_s + self.evaluation_s * self.calls(evaluations) / share

    def most(self, asked: int, left_s: float) -> int:
        """The most evaluations, up to those ``asked`` for, that end within ``left_s``; a quarter in any case."""
        least = -(-asked // LEAST_SHARE)
        fitting = (count for count in range(asked, least, -1) if self.seconds(count) * MARGIN <= left_s)
        return next(fitting, least)
