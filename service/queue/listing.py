"""The jobs of an owner, and where those stand that wait."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from service.errors import NotFound, OtherVersion
from service.messages import Job, JobView, Priority
from service.queue import keys
from service.queue.scripts import LIST, PLACE, Argument
from service.queue.store import Store
from service.queue.views import VIEW_FIELDS, read_view


class Place(NamedTuple):
    """``ahead``: jobs of its class that would go before it now; ``passes`` through the network that they take, and all
    that wait of a more urgent class."""

    ahead: int
    passes: int


class Page(NamedTuple):
    """``more``: there are others behind these."""

    views: list[JobView]
    more: bool


class Listing:
    """Every method but ``read`` raises RedisUnavailable."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def listed(self, owner: str, limit: int, after: str = "") -> list[JobView]:
        """The owner's jobs: those that wait or run, newest first, then those that ended, last ended first.

        ``after``: those behind that job. What this version cannot read is left out. Raises NotFound for another's job.
        """
        return (await self.page(owner, limit, after)).views

    async def page(self, owner: str, limit: int, after: str = "") -> Page:
        """``listed``, and whether there are more behind these."""
        of_owner = {"jobs": keys.owner_jobs(owner), "ended": keys.owner_ended(owner)}
        told: dict[str, Argument] = {
            "after": after,
            "limit": limit + 1,
            "result_ttl_s": self.store.settings.result_ttl_s,
        }
        ids = await self.store.run(LIST, LIST.call(of_owner, told))
        if ids is None:
            raise NotFound(f"no job {after}")
        async with self.store.answer(), self.store.redis.pipeline(transaction=False) as pipe:
            for job_id in ids[:limit]:
                pipe.hmget(keys.job(job_id.decode()), VIEW_FIELDS)
            rows = await pipe.execute()
        views = []
        for job_id, values in zip(ids[:limit], rows, strict=True):
            with contextlib.suppress(NotFound, OtherVersion):
                views.append(self.read(job_id.decode(), values))
        return Page(views, len(ids) > limit)

    async def place(self, job: Job) -> Place | None:
        """Where a job stands that waits; None when it waits no more, or was handed over and goes first."""
        [place] = await self.places([job])
        return place

    async def places(self, jobs: Sequence[Job]) -> list[Place | None]:
        """``place`` of each, in one trip."""
        calls = []
        for job in jobs:
            waits = {"order": keys.order(job.model, job.priority), "turns": keys.turns(job.model, job.priority)}
            if job.priority is Priority.BATCH:
                waits["first_order"] = keys.order(job.model, Priority.INTERACTIVE)
                waits["first_turns"] = keys.turns(job.model, Priority.INTERACTIVE)
            calls.append(PLACE.call(waits, {"id": job.id}))
        found = await self.store.run_all(PLACE, calls) if calls else []
        return [Place(*place) if place else None for place in found]

    def read(self, job_id: str, values: Sequence[Any]) -> JobView:
        """The job whose hash has these at VIEW_FIELDS. Raises NotFound, OtherVersion."""
        row: dict[str, bytes] = {name: value for name, value in zip(VIEW_FIELDS, values, strict=True) if value}
        if "job" not in row:
            raise NotFound(f"no job {job_id}")
        with self.store.records.reading("job", job_id):
            view = read_view(row)
        if view.status != row["status"].decode():
            self.store.records.note("job", job_id, "its status is one of another version")
        return view
