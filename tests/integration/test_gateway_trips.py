"""How often the gateway asks Redis: each look at a job, and each event, is a trip there."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.messages import Event, Status
from service.queue import keys
from service.settings import Settings

LONGER_THAN_A_LOOK_S = 1.1
"""There was one a second."""


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def sent_meanwhile(store: redis.Redis, act: Callable[[], object], *names: str) -> list[str]:
    """Commands of these names that clients sent, as text; those in scripts are not among them."""
    sent = []
    with store.monitor() as monitor:
        act()
        store.echo("over")
        while (command := monitor.next_command())["command"] != "ECHO over":
            if command["client_type"] != "lua" and command["command"].split()[0] in names:
                sent.append(command["command"])
    return sent


def test_a_client_that_waits_costs_a_look_at_the_start_and_one_at_the_end(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    worker.hold.set()

    def wait_for_a_picture() -> None:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(gateway.ask)
            until(lambda: worker.taken)
            time.sleep(LONGER_THAN_A_LOOK_S)
            worker.hold.clear()
            assert answer.result(20).status_code == 200

    looks = sent_meanwhile(store, wait_for_a_picture, "HMGET")
    assert len([look for look in looks if keys.job(worker.taken[0]) in look]) == 2


def test_an_event_costs_its_listeners_one_trip(gateway: RunningGateway, worker: TinyWorker, store: redis.Redis) -> None:
    worker.hold.set()
    worker.silent.set()
    job_id = gateway.start()
    until(lambda: gateway.job(job_id)["evaluation"] == 1)
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        lines = response.iter_lines()
        next(line for line in lines if line == "id: 1-0")

        def hear_an_event() -> None:
            event = Event(evaluation=2, evaluations=9, committed=0.5, status=Status.RUNNING)
            store.xadd(keys.events(job_id), event.model_dump(mode="json", exclude_none=True), id="2-0")
            store.publish(keys.CHANNEL, job_id)
            next(line for line in lines if line == "id: 2-0")

        sent = sent_meanwhile(store, hear_an_event, "EVALSHA", "EXISTS", "HGETALL", "HMGET", "MULTI", "XRANGE")
        assert [command.split()[0] for command in sent] == ["MULTI", "HMGET", "XRANGE"]
    worker.hold.clear()


@pytest.mark.parametrize(("route", "pictures"), [("/generate", "images"), ("/v1/images/generations", "data")])
def test_all_pictures_of_an_answer_cost_one_trip(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, route: str, pictures: str
) -> None:
    def ask_for_four() -> None:
        answer = gateway.http.post(route, json={"prompt": "a red circle", "n": 4}).json()
        assert all(picture["b64_json"] for picture in answer[pictures])

    sent = sent_meanwhile(store, ask_for_four, "HGET", "HMGET")
    [job_id] = worker.taken
    assert len([command for command in sent if keys.images(job_id) in command]) == 1
