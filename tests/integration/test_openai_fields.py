"""Every field of ``/generate`` means the same on ``/v1/images``, or is refused there by its name, too."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    DEFAULTS,
    TOKENS,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    tiny_worker,
)
from picture_files import base64, file_of, half_mask, noise

from service.gateway.openai.request import ImagesRequest
from service.gateway.schemas import GenerateRequest
from service.messages import PurityForm
from service.queue import keys
from service.settings import Settings

BASE = {"prompt": "a red circle", "seed": 3}
IMAGE = {"image": base64(file_of(noise(8, 8)))}
MASK = {"mask": base64(file_of(half_mask(8)))}
[OTHER_FORM] = {*PurityForm} - {DEFAULTS.purity_form}
CASES: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "a blue square"},
    "label": {"label": 1},
    "model": {"model": "nothing"},
    "negative_prompt": {"negative_prompt": "blue"},
    "truncate_prompt": {"truncate_prompt": True},
    "guidance_scale": {"guidance_scale": 2.5},
    "guidance_schedule": {"guidance_schedule": "ramp"},
    "purity_r": {"purity_r": 2.5},
    "tokens_per_step": {"tokens_per_step": 3},
    "steps": {"steps": 9},
    "sampler": {"sampler": "ancestral"},
    "masking_schedule": {"masking_schedule": "linear"},
    "truncation_rate": {"truncation_rate": 0.5},
    "temperature": {"temperature": 0.7},
    "seed": {"seed": 4},
    "n": {"n": 2},
    "image_index": {"image_index": 3},
    "purity_form": {"purity_form": OTHER_FORM},
    "final_resample": {"final_resample": not DEFAULTS.final_resample},
    "metadata": {"metadata": False},
    "image": IMAGE,
    "mask": {**IMAGE, **MASK},
    "strength": {**IMAGE, "strength": 0.25},
    "composite": {**IMAGE, **MASK, "composite": False},
    "pinned": {"pinned": [5] + [-1] * (TOKENS - 1)},
    "image_sha256": {**IMAGE, "image_sha256": "ab" * 32},
    "mask_sha256": {**IMAGE, **MASK, "mask_sha256": "ab" * 32},
    "format": {"format": "webp"},
    "priority": {"priority": "batch"},
    "deadline_s": {"deadline_s": 60},
    "webhook_url": {"webhook_url": "http://localhost:9/hook"},
    "adapt": {"deadline_s": 60, "adapt": True},
    "preview": {"preview": True},
}
"""What notices each field; beside it what it needs."""
OWN = ("id", "created_ms", "request_id", "traceparent")
"""Of each job its own."""


@pytest.fixture(name="gateway")
def gateway_with_webhooks(settings: Settings) -> Iterator[RunningGateway]:
    webhooks = {"webhook_secret": "whsec_" + "c2VjcmV0" * 4, "webhook_hosts": "localhost", "webhook_http": True}
    running = RunningGateway(settings.model_copy(update=webhooks))
    yield running
    running.close()


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as found:
        yield found


def field_of(answer: dict[str, Any]) -> str | None:
    """The first wrong one, in the form of either API."""
    if "error" in answer:
        param: str | None = answer["error"]["param"]
        return param
    return str(answer["errors"][0]["field"]) if "errors" in answer else None


def comes_to(gateway: RunningGateway, store: redis.Redis, path: str, fields: dict[str, Any]) -> Any:
    """The job in the queue, or the status and the field that is wrong. Nobody waits for the picture."""
    streamed = {"stream": True} if path.startswith("/v1/") else {}
    with httpx.Client(base_url=gateway.url) as client:
        asked = client.build_request("POST", path, json=fields | streamed, headers={"Prefer": "respond-async"})
        answer = client.send(asked, stream=True)
        try:
            if answer.is_error:
                return answer.status_code, field_of(json.loads(answer.read()))
            found: Any = store.hmget(
                keys.job(answer.headers["x-vqd-job-id"]), ["job", "preview", "webhook", "image", "mask"]
            )
        finally:
            answer.close()
    record = json.loads(found[0])
    return {name: value for name, value in record.items() if name not in OWN}, found[1:]


@pytest.fixture
def held(worker: TinyWorker) -> Iterator[None]:
    """No job comes to its end, and none of them is forgotten."""
    worker.hold.set()
    yield
    worker.hold.clear()


def test_each_field_makes_the_same_job(gateway: RunningGateway, store: redis.Redis, held: None) -> None:
    """Or is refused in the same way; and without it the job would be another."""
    assert CASES.keys() == GenerateRequest.model_fields.keys() <= ImagesRequest.model_fields.keys()
    for name, case in CASES.items():
        with_it = comes_to(gateway, store, "/generate", BASE | case)
        assert comes_to(gateway, store, "/v1/images/generations", BASE | case) == with_it, name
        without = {other: value for other, value in (BASE | case).items() if other != name or other in BASE}
        without |= {name: BASE[name]} if name in BASE else {}
        assert comes_to(gateway, store, "/v1/images/generations", without) != with_it, name


@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations"])
def test_where_a_webhook_may_go_is_looked_at_on_both_ways(
    gateway: RunningGateway, worker: TinyWorker, path: str
) -> None:
    refusals = {
        "http://elsewhere.example/": "is none that the operator",
        "ftp://localhost/": "begins with",
        "": "begins",
    }
    for url, says in refusals.items():
        refused = gateway.http.post(path, json=BASE | {"webhook_url": url})
        assert (refused.status_code, field_of(refused.json())) == (422, "webhook_url")
        assert says in refused.text
        assert not url or url not in refused.text
    assert worker.taken == []


def test_what_a_deadline_does(gateway: RunningGateway, held: None) -> None:
    answer = gateway.http.post("/v1/images/generations", json=BASE | {"deadline_s": 0.3})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "deadline-passed")


def test_a_format_is_the_files(gateway: RunningGateway, worker: TinyWorker) -> None:
    for fields in ({"format": "webp"}, {"output_format": "webp"}, {"format": "webp", "size": "128x128"}):
        answer = gateway.http.post("/v1/images/generations", json=BASE | fields).json()
        assert answer["output_format"] == "webp"
        assert answer["data"][0]["b64_json"].startswith("UklG")  # RIFF


def test_the_events_of_a_job_show_what_its_request_asked_for(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    """As on /generate, and whoever follows."""
    worker.hold.set()
    job = BASE | {"preview": True, "stream": True, "partial_images": 1}
    with gateway.http.stream("POST", "/v1/images/generations", json=job) as answer:
        assert store.hget(keys.job(answer.headers["x-vqd-job-id"]), "preview") == b"everybody"
