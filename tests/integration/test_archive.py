"""All pictures of a job in one ZIP."""

import io
import zipfile

import httpx
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

from service.gateway.archive import Window
from service.messages import Failure
from service.queue import keys
from service.settings import Settings


def opened(gateway: RunningGateway, job: str) -> zipfile.ZipFile:
    response = gateway.http.get(f"/jobs/{job}/images.zip")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{job}.zip"'
    return zipfile.ZipFile(io.BytesIO(response.content))


@pytest.mark.parametrize("n", [1, 4])
def test_it_has_each_picture_under_the_name_that_it_has_alone(
    gateway: RunningGateway, worker: TinyWorker, n: int
) -> None:
    job = gateway.ask(seed=7, n=n, prompt="red apple", format="webp").json()["id"]
    single = [gateway.http.get(f"/jobs/{job}/images/{index}") for index in range(n)]
    whole = opened(gateway, job)
    assert whole.testzip() is None
    assert whole.namelist() == [f"red-apple-7-{index}.webp" for index in range(n)]
    for name, alone in zip(whole.namelist(), single, strict=True):
        assert whole.read(name) == alone.content
        assert f'filename="{name}"' in alone.headers["Content-Disposition"]


def test_it_is_stored_and_says_sizes_before_the_files(gateway: RunningGateway, worker: TinyWorker) -> None:
    """So also a reader that cannot go back can unpack it."""
    whole = opened(gateway, gateway.ask(n=2).json()["id"])
    for entry in whole.infolist():
        assert (entry.compress_type, entry.flag_bits & 0x08) == (zipfile.ZIP_STORED, 0)
        assert entry.date_time > (2020, 1, 1, 0, 0, 0)


def test_without_pictures_there_is_none(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    running = gateway.start()
    early = gateway.http.get(f"/jobs/{running}/images.zip")
    assert (early.status_code, early.json()["type"]) == (409, "urn:vqd:problem:conflict")
    gateway.http.delete(f"/jobs/{running}")
    until(lambda: gateway.job(running)["status"] == "cancelled")
    worker.hold.clear()
    assert gateway.http.get(f"/jobs/{running}/images.zip").status_code == 409
    worker.failure = Failure(kind="inference-failed", message="noise")
    failed = gateway.ask().json()["job"]
    assert gateway.http.get(f"/jobs/{failed}/images.zip").json()["detail"] == "noise"
    assert gateway.http.get("/jobs/unknown/images.zip").status_code == 404


def test_one_that_cannot_be_ended_is_not_taken_for_a_whole_one(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    job = gateway.ask(n=3).json()["id"]
    with redis.Redis.from_url(settings.redis_url) as client:
        client.hdel(keys.images(job), "2")
    with gateway.http.stream("GET", f"/jobs/{job}/images.zip") as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()
    said = f"GET /jobs/{job}/images.zip broke off: no image 2 of job {job}"
    until(lambda: said in caplog.text)
    assert "met a bug" not in caplog.text


def test_of_one_that_is_not_taken_to_its_end_no_more_is_read(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings
) -> None:
    """Pictures that are larger than what a connection holds, and a client that takes the first bytes and hangs up."""
    job = gateway.ask(n=4).json()["id"]
    with redis.Redis.from_url(settings.redis_url, socket_timeout=60) as client:
        client.hset(keys.images(job), mapping={str(index): bytes(16 * 2**20) for index in range(4)})
        client.config_resetstat()
        with gateway.http.stream("GET", f"/jobs/{job}/images.zip") as response:
            assert next(response.iter_raw(16))
            assert client.info("commandstats")["cmdstat_hmget"]["calls"] <= 3, "the job, and two pictures"
    assert opened(gateway, job).testzip() is None
    assert gateway.metric('vqd_http_requests_total{method="GET",route="/jobs/{job_id}/images.zip",status="500"}') == 0


def test_what_was_taken_is_kept_no_longer() -> None:
    window, parts = Window(), []
    with zipfile.ZipFile(window, "w") as whole:
        for number in range(50):
            whole.writestr(f"{number}", bytes(10_000))
            parts.append(window.take())
            assert window.getvalue() == b""
            assert len(parts[-1]) < 11_000
    parts.append(window.take())
    assert zipfile.ZipFile(io.BytesIO(b"".join(parts))).testzip() is None
