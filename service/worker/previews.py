"""Small pictures of what is in progress, for those who ask. Nobody waits for one, and nothing for them.

They are decoded beside the steps, without a turn, and only while there is nothing else to decode. What they take is
bounded by a share of the time, so that they come more rarely where decoding is slow.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    """What is known of a job that somebody watches, by picture: its newest preview, after which evaluation that was
    made, and the purity [L] of its last step."""

    pictures: dict[int, Preview] = field(default_factory=dict)
    made_at: dict[int, int] = field(default_factory=dict)
    purity: dict[int, Float16] = field(default_factory=dict)


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
        self.leases, self.every = leases, every
        self.sights: dict[HeldJob, Sight] = {}
        self.stepped, self.rests_until_s = asyncio.Event(), 0.0
        if every:
            stepper.on_step.append(self.note)

    def note(self, rows: Sequence[JobRow], purity: Float16) -> None:
        """A step call has come to this."""
        if not self.leases.watched:
            return
        for row, of_row in zip(rows, purity, strict=True):
            if row.job.held and row.job.id in self.leases.watched:
                self.sights.setdefault(row.job, Sight()).purity[row.image] = of_row
                self.stepped.set()

    async def run(self) -> None:
        while True:
            await self.stepped.wait()
            self.stepped.clear()
            self.sights = {job: sight for job, sight in self.sights.items() if job.state is State.RUNNING}
            if self.idle and (moments := self.due()):
                await self.make(moments)

    @property
    def idle(self) -> bool:
        """Whether a decoding now is in nobody's way."""
        decoder = self.decoder
        busy = decoder.lock.locked() or decoder.rows or self.inference.turns.beside.locked()
        return self.health.running and not busy and time.monotonic() >= self.rests_until_s

    def due(self) -> list[Moment]:
        """Up to a batch of the pictures of which there is something new; first those that were longest not shown."""
        codes = self.health.jobs.info.codes
        found = [
            (row.evaluation - sight.made_at.get(row.image, 0), row, sight.purity[row.image])
            for job, sight in self.sights.items()
            for row in job.rows
            if row.remaining and row.image in sight.purity
        ]
        ripe = sorted((one for one in found if one[0] >= self.every), key=lambda one: -one[0])
        chosen = ripe[: self.inference.max_batch]
        return [Moment(row, row.tokens == codes, purity, row.evaluation) for _, row, purity in chosen]

    async def make(self, moments: Sequence[Moment]) -> None:
        grids: Int32 = np.stack([np.where(moment.masked, 0, moment.row.tokens) for moment in moments])
        try:
            pixels, seconds = await self.inference.preview(grids.astype(np.int32))
        except (TritonUnavailable, InferenceFailed) as error:  # if it is more than that, the steps find out
            log.warning("no previews for %g s: %s", FAULT_REST_S, error)
            self.rests_until_s = time.monotonic() + FAULT_REST_S
            return
        share = SHARE_ALONE if len(self.health.jobs.all) == 1 else SHARE
        self.rests_until_s = time.monotonic() + seconds / share
        drawn = await asyncio.to_thread(lambda: [*map(draw, moments, pixels)])
        for moment, preview in zip(moments, drawn, strict=True):
            if sight := self.sights.get(moment.row.job):
                sight.pictures[preview.index] = preview
                sight.made_at[preview.index] = moment.evaluation
        self.health.metrics.previews.inc(len(drawn))
        await self.show({moment.row.job for moment in moments})

    async def show(self, jobs: set[HeldJob]) -> None:
        """Give them to the queue."""
        shown = [
            (job.lease, Shown(pictures=tuple(sight.pictures[i] for i in sorted(sight.pictures))))
            for job in jobs
            if job.held and (sight := self.sights.get(job))
        ]
        try:
            await self.leases.show_all(shown)
        except RedisUnavailable as error:
            await self.health.jobs.settlement.outage.wait(error)


def draw(moment: Moment, pixels: UInt8) -> Preview:
    """Of the decoded pixels [H, W, 3]."""
    height, width, _ = pixels.shape
    return Preview(
        index=moment.row.image,
        b64_png=small_png(paint(pixels, moment.masked)),
        purity_map=purity_png(moment.purity, height, width),
    )
