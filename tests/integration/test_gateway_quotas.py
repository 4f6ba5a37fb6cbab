"""What clients are told of their limits, by a real gateway on a real Redis; and a key that floods beside another."""

import json
from collections.abc import Iterator

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    tiny_worker,
    until,
)
from key_support import Keyring, bearer

from service.gateway.access.tokens import Minted
from service.lab.bench.flood import flood_test
from service.settings import Settings

STEPS = 4
PASSES = 2 * STEPS
"""Of a request for one guided picture."""


@pytest.fixture
def keyring(settings: Settings) -> Iterator[Keyring]:
    keyring = Keyring(settings)
    yield keyring
    keyring.close()


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    running = RunningGateway(settings.model_copy(update={"key_cost_per_minute": 10 * PASSES, "key_jobs": 2}))
    yield running
    running.close()


def ask(gateway: RunningGateway, key: Minted) -> tuple[int, dict[str, str]]:
    response = gateway.http.post(
        "/generate", json={"prompt": "a red circle"}, headers={"Prefer": "respond-async"} | bearer(key)
    )
    return response.status_code, dict(response.headers)


def test_an_answer_says_what_is_left_and_a_refusal_when_to_come_back(
    gateway: RunningGateway, worker: TinyWorker, keyring: Keyring
) -> None:
    key = keyring.make(name="web")
    worker.hold.set()
    first, headers = ask(gateway, key)
    assert first == 202
    assert headers["ratelimit-policy"] == f'"passes";q={10 * PASSES};w=60, "jobs";q=2;qu="concurrent-requests"'
    assert headers["ratelimit"] == f'"passes";r={9 * PASSES};t=6'
    assert ask(gateway, key)[0] == 202
    status, headers = ask(gateway, key)
    assert (status, headers["retry-after"]) == (429, "5")
    assert headers["ratelimit"] == f'"passes";r={8 * PASSES};t=12'
    assert headers["content-type"] == "application/problem+json"
    worker.hold.clear()
    until(lambda: len(worker.ended) == 2)
    name = f'{{key="{key.id}",'
    lines = gateway.http.get("/metrics", headers=bearer(keyring.make("metrics"))).text.splitlines()
    assert f'vqd_key_jobs_total{name}name="web"}} 2.0' in lines
    assert f'vqd_key_passes_total{name}name="web"}} {2.0 * PASSES}' in lines
    assert f'vqd_key_refused_total{name}limit="jobs",name="web"}} 1.0' in lines


def test_who_asks_again_at_once_is_refused_without_a_trip_to_redis(
    gateway: RunningGateway, worker: TinyWorker, keyring: Keyring, settings: Settings
) -> None:
    key, other = keyring.make(), keyring.make()
    worker.hold.set()
    for _ in range(2):
        assert ask(gateway, key)[0] == 202
    with redis.Redis.from_url(settings.redis_url) as store:
        enqueue = next(iter(gateway.gateway.store.scripts.items()))[1].sha

        def accepting() -> int:
            """Runs of the script that accepts jobs."""
            with store.monitor() as monitor:
                answers = [ask(gateway, key) for _ in range(20)]
                store.echo("over")
                sent = []
                while (command := monitor.next_command())["command"] != "ECHO over":
                    sent.append(command["command"])
            assert {status for status, _ in answers} == {429}
            assert {headers["retry-after"] for _, headers in answers} == {"5"}
            return sum(enqueue in command for command in sent)

        assert 1 <= accepting() < 20
        assert ask(gateway, other)[0] == 202, "another key is asked about"
        worker.hold.clear()
        until(lambda: len(worker.ended) == 3)
        until(lambda: ask(gateway, key)[0] != 429)


def test_who_has_spent_a_minute_s_worth_is_told_how_long_to_wait(
    gateway: RunningGateway, worker: TinyWorker, keyring: Keyring
) -> None:
    key, other = keyring.make(), keyring.make()

    def done(count: int) -> bool:
        return len(worker.ended) == count

    for count in range(1, 11):
        assert ask(gateway, key)[0] in {200, 202}
        until(lambda count=count: done(count))  # type: ignore[misc]
    status, headers = ask(gateway, key)
    assert status == 429
    assert 4 <= int(headers["retry-after"]) <= 6, "a tenth of a minute, less what went by"
    assert ask(gateway, other)[0] in {200, 202}


def test_the_flood_of_one_key_is_refused_at_once_and_the_other_hardly_sees_it(
    gateway: RunningGateway, worker: TinyWorker, keyring: Keyring, settings: Settings
) -> None:
    """The bench itself, small, on a worker that takes no time: its summary, and that everything in it adds up."""
    polite = keyring.make(name="polite")
    free = RunningGateway(settings)  # without the limits that this key would run into
    try:
        found = json.loads(flood_test(free.url, polite.token, keyring.make(name="flood").token, requests=20))
    finally:
        free.close()
    assert found["polite_alone"]["succeeded"] == found["polite_beside_the_flood"]["succeeded"] == 20
    assert found["polite_beside_the_flood"]["errors"] == {}
    flood = found["flood"]
    assert flood["requests"] == sum(flood["answers"].values()) > 20
    assert set(flood["answers"]) <= {"200", "202", "429", "503"}
    assert flood["refusals_without_retry_after"] == 0
