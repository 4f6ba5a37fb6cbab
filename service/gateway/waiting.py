"""What a client is told of a job that waits: how many go first, and for how long that will take."""

from collections.abc import Sequence

from service.gateway.schemas import JobAnswer
from service.gateway.state import Gateway
from service.messages import JobView, Status
from service.queue.listing import Place

FIRST = Place(0, 0)
"""Of one that waits in no order: it was handed over, or taken a moment ago."""


async def described(gateway: Gateway, view: JobView) -> JobAnswer:
    """The answer about a job, without the pictures themselves. One trip to Redis more where it waits."""
    [answer] = await describe(gateway, [view])
    return answer


async def describe(gateway: Gateway, views: Sequence[JobView]) -> list[JobAnswer]:
    """Of each; one trip more for all that wait."""
    waiting = [view.job for view in views if view.status is Status.QUEUED]
    found = await gateway.submissions.places(waiting) if waiting else []
    pace = await paces(gateway) if waiting else {}
    places = dict(zip((job.id for job in waiting), found, strict=True))
    answers = []
    for view in views:
        answer = JobAnswer.of(view, root_path=gateway.settings.root_path)
        if view.job.id in places:
            place, passes_per_s = places[view.job.id] or FIRST, pace.get(view.job.model)
            estimate_s = round(place.passes / passes_per_s, 1) if passes_per_s else None
            answer = answer.model_copy(update={"ahead": place.ahead, "estimate_s": estimate_s})
        answers.append(answer)
    return answers


async def paces(gateway: Gateway) -> dict[str, float]:
    """Model → passes of the network a second of all its workers that are ready, as far as they say."""
    sums: dict[str, float] = {}
    for worker in await gateway.directory.workers():
        if worker.state == "ready" and worker.passes_per_s:
            sums[worker.model.name] = sums.get(worker.model.name, 0.0) + worker.passes_per_s
    return sums
