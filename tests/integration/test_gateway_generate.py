"""POST /generate against a real gateway, a real Redis and a tiny real worker."""

import base64
import hashlib
import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from both_sides import failing
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image

from service.messages import Failure
from service.settings import Settings

PROMPT = {"prompt": "a red circle"}


def test_json_answer(gateway: RunningGateway, worker: TinyWorker) -> None:
    response = gateway.ask(seed=7, n=2, format="webp", guidance_scale=2)
    answer = response.json()
    assert response.status_code == 200
    assert answer["status"] == "succeeded"
    assert answer["model"] == "shapes"
    assert answer["evaluations"] == 8
    assert (answer["dtype"], answer["backend"]) == ("fp32", "python")
    assert answer["timings"]["total_s"] == 0.5
    assert answer["parameters"]["guidance_scale"] == 2.0
    assert answer["parameters"]["tokens_per_step"] == 16
    assert [image["tokens_sha256"] for image in answer["images"]] == [f"{7 + i:064x}" for i in (0, 1)]
    pictures = [Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) for image in answer["images"]]
    assert [picture.format for picture in pictures] == ["WEBP", "WEBP"]
    assert "url" not in answer["images"][0]
    assert response.headers["X-Vqd-Job-Id"] == answer["id"]


def test_a_seed_is_drawn_and_reported(gateway: RunningGateway, worker: TinyWorker) -> None:
    seeds = [gateway.ask().json()["parameters"]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]


def test_image_answer(gateway: RunningGateway, worker: TinyWorker) -> None:
    response = gateway.http.post("/generate", json=PROMPT | {"seed": 5}, headers={"Accept": "image/*"})
    assert response.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).getpixel((0, 0)) == (5, 0, 0)
    assert response.headers["X-Vqd-Seed"] == "5"
    assert response.headers["X-Vqd-Tokens-Sha256"] == f"{5:064x}"
    assert json.loads(response.headers["X-Vqd-Parameters"])["sampler"] == "purity"
    assert json.loads(response.headers["X-Vqd-Timings"])["total_s"] == 0.5
    assert " " not in response.headers["X-Vqd-Parameters"]
    assert response.headers["X-Vqd-Dtype"] == "fp32"
    assert response.headers["X-Vqd-Backend"] == "python"
    assert gateway.job(response.headers["X-Vqd-Job-Id"])["status"] == "succeeded"


@pytest.mark.parametrize(
    ("accept", "fields", "status", "media"),
    [
        ("image/webp", {}, 200, "image/webp"),
        ("image/jpeg, application/json;q=0.5", {}, 200, "image/jpeg"),
        ("image/*;q=0.5, application/json", {}, 200, "application/json"),
        ("*/*", {}, 200, "application/json"),
        ("image/*", {"format": "jpeg"}, 200, "image/jpeg"),
        ("image/png", {"format": "jpeg"}, 406, "application/problem+json"),
        ("image/*", {"n": 2}, 406, "application/problem+json"),
        ("text/html", {}, 406, "application/problem+json"),
        ("image/png, application/json;q=0.5", {"n": 2}, 200, "application/json"),
        ("application/json;q=0, */*", {}, 200, "image/png"),
        ("image/png;q=0, image/*", {}, 200, "image/jpeg"),
    ],
)
def test_accept(
    gateway: RunningGateway, worker: TinyWorker, accept: str, fields: dict[str, object], status: int, media: str
) -> None:
    response = gateway.http.post("/generate", json=PROMPT | fields, headers={"Accept": accept})
    assert (response.status_code, response.headers["Content-Type"]) == (status, media)
    if media.startswith("image/"):
        assert Image.open(io.BytesIO(response.content)).get_format_mimetype() == media


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("respond-async", "respond-async"), ("wait=0", "wait=0"), ("foo, respond-async, wait=0", "respond-async, wait=0")],
)
def test_prefer_not_to_wait(gateway: RunningGateway, worker: TinyWorker, prefer: str, applied: str) -> None:
    worker.hold.set()
    response = gateway.http.post("/generate", json=PROMPT, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == applied
    assert response.headers["Retry-After"]
    assert response.json()["images"] == []
    worker.hold.clear()
    location = response.headers["Location"]
    answer = until(lambda: (a := gateway.http.get(location).json())["status"] == "succeeded" and a)
    assert gateway.http.get(answer["images"][0]["url"]).content[1:4] == b"PNG"


def test_prefer_wait_bounds_the_wait(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    response = gateway.http.post("/generate", json=PROMPT, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert 1 <= response.elapsed.total_seconds() < 3
    assert gateway.job(response.json()["id"])["status"] == "running"
    worker.hold.clear()


def test_the_service_bounds_the_wait(settings: Settings) -> None:
    running = RunningGateway(settings.model_copy(update={"sync_wait_s": 0.3}))
    tiny = TinyWorker(settings)
    try:
        tiny.hold.set()
        until(lambda: running.http.get("/readyz").status_code == 200)
        response = running.http.post("/generate", json=PROMPT, headers={"Prefer": "wait=3600"})
        assert response.status_code == 202
        assert response.elapsed.total_seconds() < 3
        tiny.hold.clear()
    finally:
        tiny.close()
        running.close()


def hang_up(gateway: RunningGateway, worker: TinyWorker, *headers: str) -> str:
    """POST, wait until the worker has the job, close the connection; returns the job's id."""
    body = json.dumps(PROMPT)
    lines = [
        "POST /generate HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall("\r\n".join([*lines, *headers, "", body]).encode())
        until(lambda: worker.taken)
    return worker.taken[0]


def test_a_hangup_cancels_the_job(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = hang_up(gateway, worker)
    until(lambda: gateway.job(job_id)["status"] == "cancelled")
    assert until(lambda: worker.ended.get(job_id)) == "cancelled"
    assert gateway.metric("vqd_http_hangups_total") == 1
    assert gateway.metric('vqd_http_requests_total{method="POST",route="/generate",status="499"}') == 1


@pytest.mark.parametrize("header", ["Idempotency-Key: k", "Prefer: respond-async, wait=20"])
def test_a_hangup_does_not_cancel_a_durable_job(gateway: RunningGateway, worker: TinyWorker, header: str) -> None:
    worker.hold.set()
    job_id = hang_up(gateway, worker, header)
    until(lambda: gateway.metric('vqd_http_requests_total{method="POST",route="/generate",status="499"}') == 1)
    worker.hold.clear()
    until(lambda: gateway.job(job_id)["status"] == "succeeded")
    assert gateway.metric("vqd_http_hangups_total") == 0


def test_a_failed_job_is_a_problem(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.failure = failing("the model returned NaN")
    response = gateway.ask()
    problem = response.json()
    assert response.status_code == 500
    assert problem["type"] == "urn:vqd:problem:inference-failed"
    assert problem["detail"] == "the model returned NaN"
    assert gateway.job(problem["job"])["error"] == "the model returned NaN"


def test_line_breaks_and_an_empty_negative_prompt_are_fine(gateway: RunningGateway, worker: TinyWorker) -> None:
    first = gateway.ask(prompt="red apple\non a table\n", negative_prompt="", seed=1)
    assert first.status_code == 200
    assert worker.background.call(worker.queue.view(first.json()["id"])).job.negative_prompt is None


def test_a_failure_that_names_a_field_is_the_clients(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.failure = Failure(kind="invalid-request", field="prompt", message="90 tokens; at most 16 are allowed")
    response = gateway.ask()
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "prompt", "message": "90 tokens; at most 16 are allowed"}]


def test_fifty_parallel_posts_with_one_key_make_one_job(gateway: RunningGateway, worker: TinyWorker) -> None:
    with ThreadPoolExecutor(50) as pool, httpx.Client(base_url=gateway.url, timeout=30) as http:
        post = lambda _: http.post("/generate", json=PROMPT, headers={"Idempotency-Key": "one"})  # noqa: E731
        responses = list(pool.map(post, range(50)))
    assert {r.status_code for r in responses} == {200}
    assert len({r.json()["id"] for r in responses}) == 1
    assert len({r.json()["images"][0]["b64_json"] for r in responses}) == 1
    assert len(worker.taken) == 1
    assert sum("Idempotent-Replayed" in r.headers for r in responses) == 49


def test_a_key_used_with_another_payload(gateway: RunningGateway, worker: TinyWorker) -> None:
    first = gateway.http.post("/generate", content='{"prompt": "x", "n": 1}', headers=keyed("two"))
    again = gateway.http.post("/generate", content='{"n":1.0,"prompt":"x"}', headers=keyed("two"))
    other = gateway.http.post("/generate", content='{"prompt": "y", "n": 1}', headers=keyed("two"))
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_a_malformed_key(gateway: RunningGateway, worker: TinyWorker, key: str) -> None:
    response = gateway.http.post("/generate", json=PROMPT, headers={b"Idempotency-Key": key.encode()})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["field"].lower() == "idempotency-key"
    assert error["allowed"] == "1 to 255 visible ASCII characters, and no space"
    assert worker.taken == []


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key, "Content-Type": "application/json"}


def test_replay_of_a_cancelled_job_is_a_conflict(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start(keyed("three"))
    gateway.http.delete(f"/jobs/{job_id}")
    until(lambda: gateway.job(job_id)["status"] == "cancelled")
    replay = gateway.http.post("/generate", json=PROMPT, headers=keyed("three"))
    assert (replay.status_code, replay.json()["job"]) == (409, job_id)


def test_deadline_and_priority_reach_the_worker(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start(deadline_s=30.5, priority="batch", negative_prompt="blue")
    job = worker.background.call(worker.queue.view(job_id)).job
    assert (job.deadline_ms, job.priority, job.negative_prompt) == (30500, "batch", "blue")


def test_images_by_address_have_an_etag(gateway: RunningGateway, worker: TinyWorker) -> None:
    job_id = gateway.ask(format="jpeg").json()["id"]
    response = gateway.http.get(f"/jobs/{job_id}/images/0")
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["ETag"].strip('"') == hashlib.sha256(response.content).hexdigest()
    again = gateway.http.get(f"/jobs/{job_id}/images/0", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for missing in (f"/jobs/{job_id}/images/1", "/jobs/nothing/images/0"):
        assert gateway.http.get(missing).status_code == 404
