"""What the service is doing now, for people who wait for it."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from pydantic import Field

from service.gateway.directory import Directory
from service.gateway.schemas import Answer
from service.messages import Priority
from service.queue.figures import Figures
from service.serving import WorkerInfo, WorkerState


class ModelActivity(Answer):
    """What is done, and waits to be done, with one model."""

    id: str
    jobs: dict[Priority, int] = Field(description="Jobs that wait or run, by priority.")
    oldest_s: dict[Priority, float] = Field(
        description="For how many seconds the oldest of them waits that no worker has taken, by priority; 0: none does."
    )
    pictures: int = Field(description="Pictures in progress, as the workers said within the last seconds.")
    workers: dict[WorkerState, int] = Field(description="Live workers, by state.")


class Activity(Answer):
    """Of every model that a live worker serves."""

    models: list[ModelActivity]


async def read_activity(directory: Directory, figures: Figures) -> Activity:
    """Two trips to Redis for each model, and the workers as they are known. Raises RedisUnavailable."""
    serving = defaultdict[str, list[WorkerInfo]](list)
    for worker in await directory.workers():
        serving[worker.model.name].append(worker)
    return Activity(models=[await read_model(name, serving[name], figures) for name in sorted(serving)])


async def read_model(name: str, workers: Sequence[WorkerInfo], figures: Figures) -> ModelActivity:
    jobs, oldest_s = await figures.depths(name), await figures.oldest_s(name)
    return ModelActivity(
        id=name,
        jobs={Priority(lane): count for lane, count in jobs.items()},
        oldest_s={Priority(lane): seconds for lane, seconds in oldest_s.items()},
        pictures=sum(worker.rows for worker in workers),
        workers=Counter(worker.state for worker in workers),
    )
