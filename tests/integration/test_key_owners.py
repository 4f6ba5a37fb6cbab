"""A job belongs to the key that made it: for another key there is no such job."""

from collections.abc import Iterator

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    until,
)
from key_support import Keyring, bearer, give

from service.gateway.access.tokens import Minted
from service.queue import keys
from service.settings import Settings

JOB = "/jobs/{job_id}"
ROUTES = [("GET", JOB + part) for part in ("", "/events", "/images/0", "/images.zip")] + [("DELETE", JOB)]


@pytest.fixture
def ring(settings: Settings) -> Iterator[Keyring]:
    keyring = Keyring(settings)
    yield keyring
    keyring.close()


@pytest.fixture
def alice(ring: Keyring) -> Minted:
    return ring.make("generate", name="alice")


@pytest.fixture
def gateway(settings: Settings, alice: Minted) -> Iterator[RunningGateway]:
    running = RunningGateway(settings)
    yield running
    running.close()


@pytest.fixture
def worker(settings: Settings, gateway: RunningGateway) -> Iterator[TinyWorker]:
    tiny = TinyWorker(settings)
    until(lambda: gateway.http.get("/readyz").status_code == 200)
    yield tiny
    tiny.close()


@pytest.fixture
def done(settings: Settings, gateway: RunningGateway, worker: TinyWorker, alice: Minted) -> str:
    """Alice's job, which has its picture."""
    worker.hold.set()  # or it might be done before the answer that it is accepted
    job_id = gateway.start(bearer(alice))
    give(settings, job_id, alice)
    worker.hold.clear()
    until(lambda: worker.ended.get(job_id))
    return job_id


def test_another_key_sees_nothing_of_it_and_hears_what_it_would_of_a_job_that_never_was(
    gateway: RunningGateway, ring: Keyring, done: str
) -> None:
    bob = bearer(ring.make("generate", "metrics", name="bob"))
    for method, path in ROUTES:
        foreign = gateway.http.request(method, path.format(job_id=done), headers=bob)
        unknown = gateway.http.request(method, path.format(job_id="f" * 32), headers=bob)
        assert foreign.status_code == unknown.status_code == 404
        differ = ("instance", "request_id")
        said = [{k: v for k, v in answer.json().items() if k not in differ} for answer in (foreign, unknown)]
        assert said[0] == said[1] | {"detail": f"no job {done}"}
        names = [answer.headers.keys() for answer in (foreign, unknown)]
        assert names[0] == names[1]


def test_its_owner_sees_it_and_admin_sees_all(gateway: RunningGateway, ring: Keyring, alice: Minted, done: str) -> None:
    for key in (alice, ring.make("admin", name="boss")):
        asked = [(method, path.format(job_id=done)) for method, path in ROUTES]
        answers = [gateway.http.request(method, path, headers=bearer(key)) for method, path in asked]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 409], "409: it is over"


def test_another_key_cannot_cancel_it(
    gateway: RunningGateway, settings: Settings, ring: Keyring, worker: TinyWorker, alice: Minted
) -> None:
    worker.hold.set()
    job_id = gateway.start(bearer(alice))
    give(settings, job_id, alice)
    until(lambda: worker.taken)
    bob, path = bearer(ring.make("generate")), JOB.format(job_id=job_id)
    assert gateway.http.delete(path, headers=bob).status_code == 404
    assert gateway.http.get(path, headers=bearer(alice)).json()["status"] == "running"
    assert gateway.http.delete(path, headers=bearer(alice)).status_code == 200
    until(lambda: worker.ended.get(job_id) == "cancelled")
    worker.hold.clear()


def test_a_job_from_before_the_first_key_is_admins(
    gateway: RunningGateway, settings: Settings, ring: Keyring, alice: Minted, done: str
) -> None:
    with redis.Redis.from_url(settings.redis_url) as client:
        client.hdel(keys.job(done), "owner")
    path = JOB.format(job_id=done)
    assert gateway.http.get(path, headers=bearer(alice)).status_code == 404
    assert gateway.http.get(path, headers=bearer(ring.make("admin"))).status_code == 200


def test_keys_may_use_the_same_idempotency_key(
    gateway: RunningGateway, ring: Keyring, worker: TinyWorker, alice: Minted
) -> None:
    bob = ring.make("generate")
    worker.hold.set()
    ids = [gateway.start(bearer(key) | {"Idempotency-Key": "mine"}, seed=1) for key in (alice, bob, alice, bob)]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]
    odd = gateway.start(bearer(bob) | {"Idempotency-Key": f"{alice.id}:mine"}, seed=1)
    assert odd not in ids
    worker.hold.clear()


def test_a_client_that_waits_gets_its_picture(gateway: RunningGateway, worker: TinyWorker, alice: Minted) -> None:
    headers = bearer(alice) | {"Accept": "image/png"}
    answer = gateway.http.post("/generate", json={"prompt": "a red circle"}, headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
