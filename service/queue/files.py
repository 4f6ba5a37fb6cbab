"""The files of finished pictures: in Redis, or where the job's result says that they are."""

from typing import Any

from service.errors import NotFound, StorageUnavailable
from service.messages import Result, Stored
from service.queue import keys
from service.queue.store import Store
from service.storage import Bucket


class Files:
    """``bucket``: where files are that are not in Redis; None: this process knows none."""

    def __init__(self, store: Store, bucket: Bucket | None) -> None:
        self.store, self.bucket = store, bucket

    async def read(self, job_id: str, index: int) -> bytes:
        """One, whichever worker put it where. Raises NotFound, OtherVersion, RedisUnavailable, StorageUnavailable."""
        async with self.store.answer():
            data: Any = await self.store.redis.hget(keys.images(job_id), str(index))
        if data is None and (stored := await self.stored(job_id, index)):
            if self.bucket is None:
                raise StorageUnavailable("S3 storage: it has this picture, and this gateway has no VQD_S3_BUCKET")
            data = await self.bucket.get(stored.key)
        if not isinstance(data, bytes):
            raise NotFound(f"no image {index} of job {job_id}")
        return data

    async def stored(self, job_id: str, index: int) -> Stored | None:
        """Where the result says that it is."""
        async with self.store.answer():
            record: Any = await self.store.redis.hget(keys.job(job_id), "result")
        if record is None:
            return None
        with self.store.records.reading("job", job_id):
            infos = Result.model_validate_json(record).images
        return next((info.stored for info in infos if info.index == index), None)
