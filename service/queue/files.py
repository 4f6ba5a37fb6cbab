"""The files of finished pictures: in Redis, or where the job's result says that they are."""

import asyncio
from collections.abc import Mapping, Sequence
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

    async def read(self, job_id: str, indices: Sequence[int]) -> list[bytes]:
        """These pictures, whichever worker put them where; the storage is asked for all of its own at once.

        Raises NotFound, OtherVersion, RedisUnavailable, StorageUnavailable.
        """
        async with self.store.answer():
            found: Any = await self.store.redis.hmget(keys.images(job_id), [str(index) for index in indices])
        files = {index: data for index, data in zip(indices, found, strict=True) if data is not None}
        if missing := [index for index in indices if index not in files]:
            stored = await self.stored(job_id)
            files |= await self.fetch({index: stored[index] for index in missing if index in stored})
        for index in indices:
            if files.get(index) is None:
                raise NotFound(f"no image {index} of job {job_id}")
        return [files[index] for index in indices]

    async def stored(self, job_id: str) -> dict[int, Stored]:
        """Where the result says that its pictures are; those that are in Redis are left out."""
        async with self.store.answer():
            record: Any = await self.store.redis.hget(keys.job(job_id), "result")
        if record is None:
            return {}
        with self.store.records.reading("job", job_id):
            infos = Result.model_validate_json(record).images
        return {info.index: info.stored for info in infos if info.stored}

    async def fetch(self, stored: Mapping[int, Stored]) -> dict[int, bytes]:
        """Those of them that are still there."""
        if not stored:
            return {}
        if (bucket := self.bucket) is None:
            raise StorageUnavailable("S3 storage: it has this picture, and this gateway has no VQD_S3_BUCKET")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {index: group.create_task(bucket.get(one.key)) for index, one in stored.items()}
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {index: data for index, task in tasks.items() if (data := task.result()) is not None}
