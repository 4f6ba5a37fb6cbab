"""The live workers, as they say of themselves."""

import contextlib
from typing import get_args

from pydantic_core import from_json

from service.errors import OtherVersion
from service.queue import keys
from service.queue.scripts import WORKERS, Argument, ScriptCall
from service.queue.store import Store
from service.serving import WorkerInfo, WorkerState


class Registrations:
    """A registration lives for as long as it says, by Redis's clock."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def register(self, info: WorkerInfo, ttl_ms: int) -> None:
        """Say that this worker lives, for ``ttl_ms``; to be repeated before they end."""
        await self.store.run(WORKERS, of(worker=info.id, record=info.model_dump_json(), ttl_ms=ttl_ms))

    async def unregister(self, worker_id: str) -> None:
        await self.store.run(WORKERS, of(worker=worker_id))

    async def workers(self) -> list[WorkerInfo]:
        """Live registrations that this version can read, by worker id."""
        known = []
        for record in await self.store.run(WORKERS, of()):
            with contextlib.suppress(OtherVersion), self.store.records.reading("registration", "of a worker"):
                known.append(self._read(record))
        return sorted(known, key=lambda worker: worker.id)

    async def was_served(self, model: str) -> bool:
        """Whether a worker has ever looked for jobs of this model here."""
        async with self.store.answer():
            return bool(await self.store.redis.exists(keys.stream(model, keys.HANDOVER)))

    def _read(self, record: bytes) -> WorkerInfo:
        """Who is in a state that we do not know is not ready. Raises ValueError, KeyError or TypeError."""
        fields = from_json(record)
        if fields["state"] not in get_args(WorkerState):
            detail = "its state is one of another version of the service"
            self.store.records.note("registration", "of a worker", detail)
            fields |= {"state": "unready", "detail": detail}
        return WorkerInfo.model_validate(fields)


def of(**arguments: Argument) -> ScriptCall:
    return WORKERS.call({"workers": keys.WORKERS, "until": keys.WORKERS_UNTIL}, arguments)
