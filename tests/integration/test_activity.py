"""GET /v1/status: what waits and what is in progress, by model."""

from pathlib import Path
from typing import Any

from fleet import Fleet
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from queue_support import worker_info

from service.serving import WorkerInfo
from service.settings import Settings


def activity(gateway: RunningGateway) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = gateway.http.get("/v1/status").raise_for_status().json()["models"]
    return models


def test_an_idle_service_says_so(gateway: RunningGateway, worker: TinyWorker) -> None:
    idle = {"interactive": 0, "batch": 0}
    assert activity(gateway) == [
        {"id": MODEL.name, "jobs": idle, "oldest_s": idle, "pictures": 0, "workers": {"ready": 1}}
    ]


def test_jobs_and_pictures_are_counted_and_the_oldest_wait_grows(
    settings: Settings, gateway: RunningGateway, worker: TinyWorker
) -> None:
    gateway.gateway.directory.max_age_s = 0
    worker.hold.set()
    first = gateway.start()
    until(lambda: worker.taken == [first])  # from now on it takes no other, for it never finishes this one
    gateway.start(priority="batch")
    busy = worker_info("busy").model_copy(update={"rows": 3, "state": "draining", "model": MODEL})
    worker.background.call(worker.queue.register(busy, 60_000))
    (model,) = activity(gateway)
    assert model["jobs"] == {"interactive": 1, "batch": 1}
    assert model["pictures"] == 3
    assert model["workers"] == {"draining": 1, "ready": 1}
    assert model["oldest_s"]["interactive"] == 0
    until(lambda: activity(gateway)[0]["oldest_s"]["batch"] > 0)
    worker.hold.clear()
    until(lambda: activity(gateway)[0]["jobs"] == {"interactive": 0, "batch": 0})


def test_each_model_is_told_of_by_itself(settings: Settings, gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.gateway.directory.max_age_s = 0
    other = TinyWorker(settings, MODEL.model_copy(update={"name": "another"}), "other")
    try:
        worker.hold.set()
        gateway.start(model=MODEL.name)
        assert [(one["id"], one["jobs"]["interactive"]) for one in activity(gateway)] == [("another", 0), ("shapes", 1)]
    finally:
        worker.hold.clear()
        other.close()


def test_without_a_worker_there_is_nothing_to_tell(gateway: RunningGateway) -> None:
    assert activity(gateway) == []


def test_a_worker_says_how_many_pictures_it_has(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path)
    try:
        fleet.start_worker()
        fleet.triton.hang()
        fleet.submit(n=3)
        until(lambda: [info.rows for info in fleet.ask(lambda queue: queue.workers())] == [3])
        fleet.triton.resume()
    finally:
        fleet.close()


def test_a_worker_of_the_version_before_says_nothing_of_pictures() -> None:
    before = worker_info("old").model_dump_json(exclude={"rows"})
    assert WorkerInfo.model_validate_json(before).rows == 0


def test_the_card_of_a_model_says_which_fields_each_sampler_takes(gateway: RunningGateway, worker: TinyWorker) -> None:
    (card,) = gateway.http.get("/v1/models").json()["data"]
    unused = {one["name"]: set(one["unused"]) & set(card["fields"]) for one in card["sampler_cards"]}
    assert [*unused] == card["samplers"]
    assert unused["purity"] == set()
    assert unused["uniform"] == {"purity_r", "purity_form"}
    assert unused["ancestral"] == {"purity_r", "tokens_per_step", "purity_form", "final_resample"}
    assert all(one["description"] for one in card["sampler_cards"])
