"""The live workers, as they say of themselves."""

from service.messages import WorkerInfo
from service.queue import keys
from service.queue.scripts import WORKERS, Argument, ScriptCall
from service.queue.store import Store


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
        """Live registrations, by worker id."""
        records = await self.store.run(WORKERS, of())
        return sorted((WorkerInfo.model_validate_json(record) for record in records), key=lambda worker: worker.id)


def of(**arguments: Argument) -> ScriptCall:
    return WORKERS.call({"workers": keys.WORKERS, "until": keys.WORKERS_UNTIL}, arguments)
