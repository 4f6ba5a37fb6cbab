"""The whole service as its users meet it: Redis, the real Triton, a worker and the gateway as processes."""

import io
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from integration.gateway_harness import until
from PIL import Image

from service.client.blocking.client import Client
from service.diffusion.samplers import SAMPLERS
from service.local.supervisor import Supervisor
from service.messages import Status

README = {"prompt": "red apple", "guidance_scale": 3, "purity_r": 1, "tokens_per_step": 4, "seed": 7}
LONG = {**README, "tokens_per_step": 1, "steps": 64}
EIGHT = {**LONG, "n": 8}
SIZE, TOKENS = (32, 32), 64
LIMIT_S = 90.0


@pytest.fixture
def http(service: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service, timeout=LIMIT_S) as client:
        yield client


def make(http: httpx.Client, fields: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/generate", json=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def hashes(answer: dict[str, Any]) -> list[str]:
    return [image["tokens_sha256"] for image in answer["images"]]


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.fixture(scope="module")
def eight(service: str) -> list[str]:
    """The hashes of EIGHT, made synchronously and undisturbed."""
    with httpx.Client(base_url=service, timeout=LIMIT_S) as client:
        return hashes(make(client, EIGHT))


def test_the_call_of_the_readme_gives_a_picture(http: httpx.Client) -> None:
    answer = http.post("/generate", json=README, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    picture = opened(answer.content)
    assert (picture.format, picture.size) == ("PNG", SIZE)
    assert len(picture.convert("RGB").getcolors(SIZE[0] * SIZE[1]) or []) > 10
    assert answer.headers["X-Vqd-Seed"] == "7"
    assert [answer.headers["X-Vqd-Tokens-Sha256"]] == hashes(make(http, README))


def test_the_json_answer_says_what_was_used(http: httpx.Client) -> None:
    answer = make(http, README)
    assert answer["status"] == "succeeded"
    assert answer["parameters"].items() >= {k: v for k, v in README.items() if k != "prompt"}.items()
    assert answer["parameters"].items() >= {"sampler": "purity", "steps": 8, "n": 1, "format": "png"}.items()
    assert (answer["evaluations"], answer["evaluation"], answer["committed"], answer["attempts"]) == (16, 16, 1, 1)
    assert answer["model"] == "emoji-32"
    timings = answer["timings"]
    assert min(timings.values()) >= 0
    assert timings["steps_s"] > 0
    assert answer["created_ms"] <= answer["started_ms"] <= answer["finished_ms"]
    (image,) = answer["images"]
    assert (image["index"], image["seed"]) == (0, 7)
    assert opened(b64decode(image["b64_json"])).size == SIZE


def test_images_of_one_job_differ_and_begin_with_the_single_one(http: httpx.Client) -> None:
    """noise.py: the noise of image i is keyed by (seed, i)."""
    three = make(http, {**README, "n": 3})
    assert [(image["index"], image["seed"]) for image in three["images"]] == [(0, 7), (1, 7), (2, 7)]
    assert len(set(hashes(three))) == 3
    assert hashes(three)[:1] == hashes(make(http, README))
    assert hashes(three) == hashes(make(http, {**README, "n": 3}))


CROWD: list[dict[str, Any]] = [
    {"prompt": "blue car", "seed": 1, "guidance_scale": 1},
    {"prompt": "a cat", "seed": 2, "guidance_scale": 7.5, "purity_r": 0},
    {"prompt": "sun", "seed": 3, "purity_r": 4, "tokens_per_step": 1},
    {"prompt": "tree", "seed": 4, "tokens_per_step": 16, "steps": 4},
    {"prompt": "pizza", "seed": 5, "tokens_per_step": 64, "steps": 1},
    {"prompt": "fish", "seed": 6, "sampler": "uniform", "steps": 20},
    {"prompt": "red apple", "seed": 8, "sampler": "uniform", "tokens_per_step": 2, "temperature": 0.5},
    {"prompt": "moon", "seed": 9, "sampler": "ancestral", "steps": 25},
    {"prompt": "dog", "seed": 10, "sampler": "ancestral", "steps": 100, "truncation_rate": 0.86},
    {"prompt": "rose", "seed": 11, "temperature": 2},
    {"prompt": "house", "seed": 12, "truncation_rate": 0.5, "negative_prompt": "blue"},
    {"prompt": "green heart", "seed": 13, "n": 4},
    {"prompt": "clock", "seed": 14, "format": "webp"},
    {"prompt": "red apple", "seed": 7, "guidance_scale": 0},
    {"prompt": "red apple", "seed": 15, "priority": "batch"},
]


def test_a_seed_is_a_seed_alone_and_in_a_crowd(http: httpx.Client) -> None:
    alone = [hashes(make(http, fields)) for fields in (LONG, CROWD[6], CROWD[8])]
    began = time.monotonic()
    with ThreadPoolExecutor(1 + len(CROWD)) as pool:
        crowd = list(pool.map(lambda fields: make(http, fields), [LONG, *CROWD]))
    seconds = time.monotonic() - began
    assert [hashes(crowd[i]) for i in (0, 7, 9)] == alone
    assert len({hash_ for answer in crowd for hash_ in hashes(answer)}) == sum(len(a["images"]) for a in crowd)
    # Each call's time counts for every job that it carried: the calls did carry several.
    assert sum(answer["timings"]["steps_s"] for answer in crowd) > 2.5 * seconds


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_a_picture(http: httpx.Client, sampler: str) -> None:
    fields = {"prompt": "red apple", "seed": 7, "sampler": sampler, "steps": 10}
    answer = make(http, fields)
    assert (answer["parameters"]["sampler"], answer["committed"]) == (sampler, 1)
    assert answer["evaluations"] == 10  # more than the TOKENS / 8 of the samplers that take z
    assert opened(b64decode(answer["images"][0]["b64_json"])).size == SIZE
    assert hashes(answer) == hashes(make(http, fields))


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_other_formats_show_the_same_tokens(http: httpx.Client, image_format: str) -> None:
    accepted = http.post("/generate", json=README, headers={"Accept": f"image/{image_format}"})
    asked = make(http, {**README, "format": image_format})
    for data in (accepted.content, b64decode(asked["images"][0]["b64_json"])):
        picture = opened(data)
        assert (picture.format, picture.size) == (image_format.upper(), SIZE)
    assert accepted.headers["Content-Type"] == f"image/{image_format}"
    assert [accepted.headers["X-Vqd-Tokens-Sha256"]] == hashes(asked) == hashes(make(http, README))


def test_a_negative_prompt_and_guidance_change_the_picture(http: httpx.Client) -> None:
    changes = [{}, {"negative_prompt": "red"}, {"guidance_scale": 1}, {"prompt": "blue fish"}, {"seed": 8}]
    found = [hashes(make(http, {**README, **change}))[0] for change in changes]
    assert len(set(found)) == len(changes)


def test_an_asynchronous_job_tells_its_progress(http: httpx.Client, service: str, eight: list[str]) -> None:
    accepted = http.post("/generate", json=EIGHT, headers={"Prefer": "respond-async"})
    job_id = accepted.json()["id"]
    assert (accepted.status_code, accepted.headers["Location"]) == (202, f"/jobs/{job_id}")
    with Client(service, timeout_s=LIMIT_S) as client:
        events = list(client.job(job_id).events())
    evaluations = [event.evaluation for event in events]
    assert evaluations == sorted(evaluations)
    assert evaluations[-1] == events[0].evaluations == 8 * TOKENS
    committed = [event.committed for event in events]
    assert committed == sorted(committed)
    assert committed[-1] == 1
    assert len(set(committed)) > 3
    assert [event.status for event in events] == [Status.RUNNING] * (len(events) - 1) + [Status.SUCCEEDED]
    answer = http.get(f"/jobs/{job_id}").json()
    assert hashes(answer) == eight
    assert all(opened(http.get(image["url"]).content).size == SIZE for image in answer["images"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": "red apple " * 30}, "prompt"),
        ({"prompt": "🍎"}, "prompt"),
        ({"sampler": "ancestral"}, "tokens_per_step"),
        ({"n": 99}, "n"),
    ],
)
def test_a_wrong_field_is_named(http: httpx.Client, changes: dict[str, Any], field: str) -> None:
    answer = http.post("/generate", json={**README, **changes})
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_what_is_served_and_how_it_is(http: httpx.Client) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert model["id"] == "emoji-32"
    assert (model["shapes"]["tokens"], model["shapes"]["image_width"]) == (TOKENS, SIZE[0])
    assert (model["defaults"]["steps"], model["ranges"]["tokens_per_step"]["maximum"]) == (8, TOKENS)
    assert model["samplers"] == list(SAMPLERS)
    assert http.get("/readyz").json() == {"status": "ready"}
    assert http.get("/healthz").json() == {"status": "alive"}
    metrics = http.get("/metrics").text
    assert "vqd_" in metrics
    assert 'state="ready"} 1.0' in metrics


def test_a_job_survives_kill_9_of_its_worker(supervisor: Supervisor, eight: list[str]) -> None:
    """The service that all share: it heals."""
    with Client(supervisor.url) as client:
        job_id = client.submit(**EIGHT).id

        def view() -> dict[str, Any]:
            body: dict[str, Any] = client.http.get(f"/jobs/{job_id}").json()
            return body

        until(lambda: view()["evaluation"] > 2 * TOKENS, LIMIT_S)
        worker = next(part for part in supervisor.parts if part.name == "worker")
        killed = worker.server.process
        killed.kill()
        killed.wait()
        assert view()["evaluation"] < 7 * TOKENS
        worker.check()
        assert worker.server.process.pid != killed.pid
        until(lambda: view()["status"] != "running", LIMIT_S)
        answer = view()
    assert (answer["status"], answer["attempts"]) == ("succeeded", 2)
    assert hashes(answer) == eight
