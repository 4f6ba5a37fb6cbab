"""The models that live workers serve, as the gateway knows them."""

import asyncio
import time

from service.diffusion.samplers import SAMPLERS
from service.errors import NotFound, Unavailable
from service.gateway.tasks import cancel_tasks
from service.queue.registrations import Registrations
from service.serving import ModelInfo, WorkerInfo

STATE_ORDER = {"ready": 0, "unready": 1, "draining": 2}


class Directory:
    """Registrations of live workers, read from Redis at most once per ``max_age_s``."""

    def __init__(self, registrations: Registrations, max_age_s: float = 1.0) -> None:
        self.registrations, self.max_age_s = registrations, max_age_s
        self.read_s = float("-inf")
        self.known: list[WorkerInfo] = []
        self.reading: asyncio.Task[None] | None = None

    async def workers(self) -> list[WorkerInfo]:
        if time.monotonic() - self.read_s > self.max_age_s:
            # One reading at a time, whose answer or error everyone gets: a silent Redis must not make a queue of waits.
            if self.reading is None or self.reading.done():
                self.reading = asyncio.create_task(self.read(), name="directory")
            await asyncio.shield(self.reading)
        return self.known

    async def read(self) -> None:
        self.known = [with_known_samplers(worker) for worker in await self.registrations.workers()]
        self.read_s = time.monotonic()

    async def close(self) -> None:
        """A reading that nobody waits for any more would outlive its connection."""
        if self.reading:
            await cancel_tasks(self.reading)

    async def models(self) -> dict[str, ModelInfo]:
        """By name. Where workers disagree during a rollout, a ready one's word counts."""
        workers = sorted(await self.workers(), key=lambda worker: STATE_ORDER[worker.state], reverse=True)
        return {worker.model.name: worker.model for worker in workers}

    async def pick(self, name: str | None) -> ModelInfo:
        """The named model, or the only one.

        Raises Unavailable when its last worker has left, or there is none at all; NotFound, naming the choice, for one
        that never was.
        """
        models = await self.models()
        if not models:
            raise Unavailable("no worker is registered, so no model is served", retry_after_s=5)
        if name is None and len(models) == 1:
            return next(iter(models.values()))
        if name in models:
            return models[name]
        if name and await self.registrations.was_served(name):
            raise Unavailable(f"no worker of model {name!r} is registered; its last one has left", retry_after_s=5)
        asked = "several models are served and the request names none" if name is None else f"no model {name!r}"
        raise NotFound(f"{asked}; served: {', '.join(sorted(models))}")


def with_known_samplers(worker: WorkerInfo) -> WorkerInfo:
    """A newer worker may offer samplers that this gateway cannot plan for."""
    known = tuple(sampler for sampler in worker.model.samplers if sampler in SAMPLERS)
    return worker.model_copy(update={"model": worker.model.model_copy(update={"samplers": known})})
