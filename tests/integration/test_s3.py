"""Finished pictures in S3-compatible storage: real workers and gateways, and a real S3 server in its own process."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import obstore
import pytest
import redis
from commands import complaint, run, vqd
from fleet import write_repository
from gateway_harness import RunningGateway
from openai_support import PROMPT, opened
from s3_support import BUCKET, Service

from service.queue import keys
from service.settings import Settings


@pytest.fixture(scope="module")
def service(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For what harms nobody."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    with ExitStack() as stack:
        made = Service(redis_server, tmp_path_factory.mktemp("s3"), stack)
        made.serve(stack)
        yield made


# What the client sees is the same


@pytest.mark.parametrize(("n", "form"), [(1, "png"), (3, "webp")])
def test_pictures_are_stored_and_served(service: Service, n: int, form: str) -> None:
    before = set(service.s3.objects())
    answer = service.ask(seed=7, n=n, format=form)
    job = answer["id"]
    names = sorted(set(service.s3.objects()) - before)
    assert names == service.stored_keys(job) == [f"vqd/a/{job}/1/{index}.{form}" for index in range(n)]
    assert service.in_redis(job) == 0
    for index, name in enumerate(names):
        data, headers = service.s3.read(name)
        served = service.image(job, index)
        assert (opened(answer["images"][index]["b64_json"]).size, served.content) == ((64, 64), data)
        assert headers["Content-Type"] == served.headers["Content-Type"] == f"image/{form}"
        assert headers["Content-Disposition"] == served.headers["Content-Disposition"]
        assert service.image(job, index, **{"If-None-Match": served.headers["ETag"]}).status_code == 304
    assert service.image(job, n).status_code == 404


def test_one_picture_is_the_answer_itself(service: Service) -> None:
    asked = {"prompt": "a red circle", "steps": 4, "seed": 8}
    response = service.http.post("/generate", json=asked, headers={"Accept": "image/*"})
    assert (response.headers["Content-Type"], opened(response.content).size) == ("image/png", (64, 64))


def test_the_zip_has_them_all(service: Service) -> None:
    answer = service.ask(seed=9, n=2)
    response = service.http.get(f"/jobs/{answer['id']}/images.zip")
    whole = zipfile.ZipFile(io.BytesIO(response.content))
    assert [whole.read(name) for name in whole.namelist()] == [
        service.s3.read(name)[0] for name in service.stored_keys(answer["id"])
    ]


def test_openais_clients_get_them(service: Service) -> None:
    asked = {"prompt": PROMPT, "n": 2, "size": "128x128", "seed": 3}
    inside = service.http.post("/v1/images/generations", json=asked | {"response_format": "b64_json"}).json()
    assert [opened(data["b64_json"]).size for data in inside["data"]] == [(128, 128)] * 2
    linked = service.http.post("/v1/images/generations", json=asked | {"response_format": "url"}).json()
    assert opened(service.http.get(linked["data"][1]["url"]).content).size == (128, 128)
    streamed = service.http.post("/v1/images/generations", json=asked | {"n": 1, "stream": True}).text
    event = json.loads(streamed.partition("event: image_generation.completed\ndata: ")[2].partition("\n")[0])
    assert opened(event["b64_json"]).size == (128, 128)


def test_a_keys_bytes_count_wherever_they_are(service: Service) -> None:
    """The limit is on what is kept for a key, not on Redis's memory."""
    used = keys.owner_used("")
    before = int(service.redis.hget(used, "bytes") or 0)  # type: ignore[arg-type]
    job = service.ask(seed=10, n=2)["id"]
    sizes = [len(service.s3.read(name)[0]) for name in service.stored_keys(job)]
    assert int(service.redis.hget(used, "bytes") or 0) - before == sum(sizes) > 0  # type: ignore[arg-type]


def test_an_object_that_is_gone_is_a_result_that_has_expired(service: Service) -> None:
    """A bucket's lifecycle rule took it."""
    gone, stays = service.ask(seed=11, n=2)["id"], service.ask(seed=12)["id"]
    obstore.delete(service.s3.store(), service.stored_keys(gone))
    answer = service.image(gone)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:vqd:problem:not-found")
    assert answer.json()["detail"] == f"no image 0 of job {gone}"
    assert service.http.get(f"/jobs/{gone}/images.zip").status_code == 404
    assert service.image(stays).status_code == 200


def test_a_gateway_without_the_setting_says_so(service: Service, redis_server: str) -> None:
    job = service.ask(seed=13)["id"]
    with closing(RunningGateway(Settings(redis_url=redis_server, redis_timeout_s=5.0))) as other:
        answer = other.http.get(f"/jobs/{job}/images/0")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:vqd:problem:storage-unavailable")
        assert "VQD_S3_BUCKET" in answer.json()["detail"]
        assert other.job(job)["status"] == "succeeded"


# At the start


@pytest.mark.parametrize(
    ("command", "changed", "why"),
    [
        ("worker", {"AWS_SECRET_ACCESS_KEY": "wrong-8d2c"}, "SignatureDoesNotMatch"),
        ("worker", {"VQD_S3_BUCKET": "misspelt"}, "NoSuchBucket"),
        ("gateway", {"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ("gateway", {"VQD_S3_BUCKET": "misspelt"}, "NoSuchBucket"),
    ],
    ids=["worker-secret", "worker-bucket", "gateway-key", "gateway-bucket"],
)
def test_a_storage_that_refuses_stops_the_process(
    service: Service, tmp_path: Path, command: str, changed: dict[str, str], why: str
) -> None:
    write_repository(tmp_path)
    environment = service.s3.environment(**changed)
    said = complaint(vqd(command, cwd=tmp_path, **environment, VQD_REPOSITORY=str(tmp_path), VQD_PORT="0"))
    assert f"VQD_S3_BUCKET={environment['VQD_S3_BUCKET']} cannot be used" in said
    assert why in said
    assert environment["AWS_SECRET_ACCESS_KEY"] not in said


@pytest.mark.parametrize("command", ["worker", "gateway"])
def test_without_the_extra_the_setting_is_refused(tmp_path: Path, command: str) -> None:
    write_repository(tmp_path)
    without = f"import sys; sys.argv = ['vqd', '{command}']; sys.modules['obstore'] = None"
    code = f"{without}; from service.cli.app import main; main()"
    variables = {"VQD_S3_BUCKET": BUCKET, "VQD_PORT": "0", "VQD_REPOSITORY": str(tmp_path)}
    said = complaint(run([sys.executable, "-c", code], tmp_path, variables))
    assert "VQD_S3_BUCKET is set and the package 'obstore" in said
    assert "pip install 'vqd[s3]'" in said
