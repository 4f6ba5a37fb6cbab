"""Small pictures of what is in progress, for those who ask. Nobody waits for one, and nothing for them.

They are decoded beside the steps, without a turn, and only while there is nothing else to decode. What they take is
bounded by a share of the time, so that they come more rarely where decoding is slow. Calls end where there is something
to show only as long as the job that asked for it is the only one here.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.errors import InferenceFailed, RedisUnavailable, TritonUnavailable
from service.queue.leases import Leases
from service.queue.previews import Preview, Shown
from service.triton.contract import Float16, Int32, UInt8
from service.worker.job import HeldJob, JobRow, State
from service.worker.painting import Mask, paint, purity_png, small_png
from service.worker.stepper import Stepper

log = logging.getLogger(__name__)

SHARE, SHARE_ALONE = 0.03, 0.1
"""Of the time they may take; more when there is one job alone, which asked for them and is the only one to wait."""
FAULT_REST_S = 10.0
"""How long there are none when one has failed."""


@dataclass
class Sight:
    """What is known of a row that somebody watches: the purity [L] of its last step, its newest preview, and how many
    evaluations that shows."""

    purity: Float16
    preview: Preview | None = None
    evaluation: int = 0


@dataclass(frozen=True)
class Moment:
    """A row as it is now; the next step goes on meanwhile."""

    row: JobRow
    masked: Mask
    purity: Float16
    evaluation: int


class Previews:
    """``every``: evaluations of a picture between two previews of it; 0: none are made."""

    def __init__(self, stepper: Stepper, leases: Leases, every: int) -> None:
        self.inference, self.decoder, self.health = stepper.inference, stepper.decoder, stepper.health
        self.times, self.leases, self.every = stepper.scheduler.times, leases, every
        self.sights: dict[JobRow, Sight] = {}
        self.stepped, self.rests_until_s = asyncio.Event(), 0.0
        self.rests_for: HeldJob | None = None
        """The job that was alone when the rest began. The rest spares nobody else, and ends with it."""
        if every:
            stepper.on_step.append(self.note)
            stepper.pace = self.pace

    def pace(self) -> int | None:
        """The most evaluations of the next call: a job that is alone here and watched is shown on its way."""
        if not self.leases.watched:
            return None
        jobs = self.health.jobs.in_the_making
        rows = [row for job in jobs if job.id in self.leases.watched for row in job.rows]
        if not rows or len(jobs) > 1:
            return None
        expected_s = self.times.expect(len(rows))
        resting = int(self.rest_s / expected_s) if expected_s else 0
        return max(resting, min(map(self.apart, rows)))

    def apart(self, row: JobRow) -> int:
        """Evaluations between two previews of a picture: a short way is shown once in its middle."""
        return min(self.every, -(-len(row.plan) // 2))

    def note(self, rows: Sequence[JobRow], purity: Float16) -> None:
        """A step call has come to this."""
        if not self.leases.watched:
            return
        for row, of_row in zip(rows, purity, strict=True):
            if row.job.held and row.job.id in self.leases.watched:
                self.sights.setdefault(row, Sight(of_row)).purity = of_row
                self.stepped.set()

    async def run(self) -> None:
        while True:
            await self.stepped.wait()
            self.stepped.clear()
            self.sights = {row: sight for row, sight in self.sights.items() if row.job.state is State.RUNNING}
            if self.idle and (moments := self.due()):
                await self.make(moments)

    @property
    def idle(self) -> bool:
        """Whether a decoding now is in nobody's way."""
        decoder = self.decoder
        busy = decoder.lock.locked() or decoder.rows or self.inference.turns.beside.locked()
        return self.health.running and not busy and not self.rest_s

    @property
    def rest_s(self) -> float:
        if self.rests_for and not self.rests_for.in_the_making:
            return 0.0
        return max(0.0, self.rests_until_s - time.monotonic())

    def due(self) -> list[Moment]:
        """Up to a batch of the pictures of which there is something new; first those that were longest not shown."""
        codes = self.health.jobs.info.codes
        new = {row: row.evaluation - sight.evaluation for row, sight in self.sights.items() if row.remaining}
        ripe = sorted((row for row, count in new.items() if count >= self.apart(row)), key=lambda row: -new[row])
        chosen = ripe[: self.inference.max_batch]
        return [Moment(row, row.tokens == codes, self.sights[row].purity, row.evaluation) for row in chosen]

    async def make(self, moments: Sequence[Moment]) -> None:
        grids: Int32 = np.stack([np.where(moment.masked, 0, moment.row.tokens) for moment in moments])
        try:
            pixels, seconds = await self.inference.preview(grids.astype(np.int32))
        except (TritonUnavailable, InferenceFailed) as error:  # if it is more than that, the steps find out
            log.warning("no previews for %g s: %s", FAULT_REST_S, error)
            self.rests_until_s, self.rests_for = time.monotonic() + FAULT_REST_S, None
            return
        alone = len(self.health.jobs.in_the_making) == 1
        self.rests_until_s = time.monotonic() + seconds / (SHARE_ALONE if alone else SHARE)
        self.rests_for = moments[0].row.job if alone else None
        drawn = await asyncio.to_thread(lambda: [*map(draw, moments, pixels)])
        for moment, preview in zip(moments, drawn, strict=True):
            self.sights[moment.row].preview = preview
            self.sights[moment.row].evaluation = moment.evaluation
        self.health.metrics.previews.inc(len(drawn))
        await self.show({moment.row.job for moment in moments})

    async def show(self, jobs: set[HeldJob]) -> None:
        """Give what there is of their pictures to the queue."""
        newest = {
            job: [sight.preview for row in job.rows if (sight := self.sights.get(row)) and sight.preview]
            for job in jobs
            if job.held
        }
        shown = [(job.lease, Shown(pictures=tuple(pictures))) for job, pictures in newest.items()]
        try:
            await self.leases.show_all(shown)
        except RedisUnavailable as error:
            await self.health.jobs.settlement.outage.wait(error)


def draw(moment: Moment, pixels: UInt8) -> Preview:
    """Of the decoded pixels [H, W, 3]."""
    row, (height, width, _) = moment.row, pixels.shape
    return Preview(
        index=row.image - row.parameters.image_index,
        b64_png=small_png(paint(pixels, moment.masked)),
        purity_map=purity_png(moment.purity, height, width),
    )
