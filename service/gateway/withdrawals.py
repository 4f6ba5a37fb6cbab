"""Jobs of which nobody knows: Redis did not say in time that it took them, and their clients were told 503.

What was sent to a Redis that hung is carried out when it goes on.
"""

import asyncio
import logging

from service.errors import NotFound, OtherVersion, RedisUnavailable
from service.gateway.tasks import cancel_tasks, in_background
from service.queue.submissions import Submissions

log = logging.getLogger(__name__)

PAUSE_S = 0.5
MOST = 10_000


class Withdrawals:
    """Cancels them when Redis answers again. Its task lives only as long as there are any."""

    def __init__(self, submissions: Submissions) -> None:
        self.submissions = submissions
        self.jobs: dict[str, None] = {}
        self.task: asyncio.Task[None] | None = None

    def add(self, job_id: str) -> None:
        if len(self.jobs) < MOST:
            self.jobs[job_id] = None
        if self.task is None or self.task.done():
            self.task = in_background("withdrawals", self.run())

    async def run(self) -> None:
        while self.jobs:
            job_id = next(iter(self.jobs))
            try:
                # When this is answered, Redis has also done what was sent before it hung.
                await self.submissions.store.ping()
                await self.submissions.cancel(job_id, unknown=True)
                log.info("job %s is withdrawn: Redis took it when its client had been told 503", job_id)
            except RedisUnavailable:
                await asyncio.sleep(PAUSE_S)
                continue
            except (NotFound, OtherVersion):  # it was never taken
                pass
            del self.jobs[job_id]

    async def close(self) -> None:
        if self.task:
            await cancel_tasks(self.task)
