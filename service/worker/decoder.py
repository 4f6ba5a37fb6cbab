"""Finished grids to pictures, and jobs that have all their pictures to their end."""

import asyncio

import numpy as np

from service.engine.inference import Inference
from service.errors import InferenceFailed, TritonUnavailable
from service.triton.contract import Int32, UInt8
from service.worker.health import Health
from service.worker.images import encode_row
from service.worker.job import HeldJob, JobRow, State
from service.worker.traces import Traces
from service.worker.uploads import Uploads


class Decoder:
    """``lock`` is held while it decodes: a drain waits for it."""

    def __init__(self, inference: Inference, health: Health, traces: Traces, uploads: Uploads | None = None) -> None:
        self.inference, self.health, self.traces = inference, health, traces
        self.uploads = uploads or Uploads(health.metrics)
        self.rows: list[JobRow] = []
        self.ready, self.lock = asyncio.Event(), asyncio.Lock()
        health.on_ready.append(self.ready.set)

    def add(self, rows: list[JobRow]) -> None:
        """Rows whose evaluations are all done."""
        self.rows += rows
        for job in {row.job for row in rows if not row.dropped}:
            if not any(row.remaining for row in job.rows):
                job.enter(State.DECODING)
        if rows:
            self.ready.set()

    async def run(self) -> None:
        while True:
            await self.ready.wait()
            self.ready.clear()
            async with self.lock:
                while self.health.running and (rows := self.take()):
                    await self.decode(rows)

    def take(self) -> list[JobRow]:
        """The next batch, of jobs that are still held."""
        wanted = [row for row in self.rows if not row.dropped]
        size = self.inference.max_batch
        self.rows = wanted[size:]
        return wanted[:size]

    async def decode(self, rows: list[JobRow]) -> None:
        """One batch; if Triton cannot decode it, each job's rows for themselves, to find out whose fault it is."""
        jobs = list({row.job: None for row in rows})
        try:
            with self.traces.decode(job.lease for job in jobs):
                pictures, seconds = await self.inference.decode(self.grids(rows))
        except TritonUnavailable as error:
            await self.health.lose_triton(error, jobs)
        except InferenceFailed as error:
            if await self.health.is_sick(error, jobs):
                return
            if len(jobs) == 1:
                await jobs[0].fail(error)
                return
            for job in jobs:
                await self.decode([row for row in rows if row.job is job and not row.dropped])
        else:
            await self.finish(rows, pictures)
            await self.complete(jobs, seconds)

    def grids(self, rows: list[JobRow]) -> Int32:
        """Raises InferenceFailed for one that still has a mask in it: a step has not done what it should."""
        grids = np.stack([row.tokens for row in rows])
        if (grids >= rows[0].job.info.codes).any():
            raise InferenceFailed("diffusion_step left masked positions in a finished grid")
        return grids

    async def finish(self, rows: list[JobRow], pictures: UInt8) -> None:
        """Encode the pictures into files, away from the event loop."""
        files = await asyncio.to_thread(lambda: [*map(encode_row, pictures, rows)])
        for row, file in zip(rows, files, strict=True):
            row.job.files[row.image] = file

    async def complete(self, jobs: list[HeldJob], seconds: float) -> None:
        for job in jobs:
            job.decode_s += seconds
        await self.uploads.take([job for job in jobs if len(job.files) == len(job.rows)])
