"""A picture again, by what its answer says: a real gateway, a real Redis and a tiny worker."""

import io
import json
import random
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    VERSION,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image
from random_requests import random_request

from service.diffusion.samplers import SAMPLERS
from service.provenance.origin import Origin
from service.settings import Settings

Fields = dict[str, Any]
EVERYTHING = MODEL.model_copy(update={"samplers": tuple(SAMPLERS)})


@pytest.fixture
def skilled(settings: Settings, gateway: RunningGateway) -> Iterator[TinyWorker]:
    """A worker that offers every sampler."""
    tiny = TinyWorker(settings, EVERYTHING)
    until(lambda: gateway.http.get("/readyz").status_code == 200)
    yield tiny
    tiny.close()


def make(gateway: RunningGateway, fields: Fields) -> Fields:
    response = gateway.http.post("/generate", json=fields)
    assert response.status_code == 200, (fields, response.text)
    answer: Fields = response.json()
    return answer


def hashes(answer: Fields) -> list[str]:
    return [image["tokens_sha256"] for image in answer["images"]]


def test_whatever_is_answered_can_be_posted_again(gateway: RunningGateway, skilled: TinyWorker) -> None:
    rng = random.Random(25)
    for _ in range(25):
        asked = random_request(rng, EVERYTHING)
        answer = make(gateway, asked)
        again = make(gateway, answer["parameters"] | {"prompt": asked["prompt"]})
        assert (again["parameters"], hashes(again)) == (answer["parameters"], hashes(answer)), asked
        one = rng.choice(answer["images"])
        (alone,) = make(gateway, one["request"])["images"]
        assert (alone["tokens_sha256"], alone["request"]) == (one["tokens_sha256"], one["request"])
        assert alone["b64_json"] == one["b64_json"], "the same bytes"


def test_number_two_of_four_is_made_alone(gateway: RunningGateway, worker: TinyWorker) -> None:
    four = gateway.ask(seed=7, n=4).json()
    alone = gateway.ask(seed=7, n=1, image_index=2).json()
    assert hashes(alone) == hashes(four)[2:3]
    assert [(image["index"], image["image_index"]) for image in four["images"]] == [(i, i) for i in range(4)]
    assert [(image["index"], image["image_index"]) for image in alone["images"]] == [(0, 2)]
    two = gateway.ask(seed=7, n=2, image_index=1).json()
    assert hashes(two) == hashes(four)[1:3]
    assert [image["image_index"] for image in two["images"]] == [1, 2]
    assert gateway.http.get(f"/jobs/{two['id']}/images/1").status_code == 200, "the place in the job"
    assert gateway.http.get(f"/jobs/{two['id']}/images/2").status_code == 404


def test_an_answer_says_which_model_and_version(gateway: RunningGateway, worker: TinyWorker) -> None:
    answer = gateway.ask(seed=7).json()
    assert (answer["model_sha256"], answer["version"]) == (MODEL.sha256, VERSION)
    worker.hold.set()
    running = gateway.job(gateway.start(seed=7))
    assert not {"model_sha256", "version"} & running.keys()


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_file_says_what_its_answer_says(
    gateway: RunningGateway, worker: TinyWorker, image_format: str, tmp_path: Path
) -> None:
    answer = gateway.ask(prompt="Äpfel 🍎", seed=7, n=2, format=image_format).json()
    for image in answer["images"]:
        path = tmp_path / "file"
        path.write_bytes(b64decode(image["b64_json"]))
        origin = Origin.read(path)
        assert (origin.request, origin.tokens_sha256) == (image["request"], image["tokens_sha256"])
        assert (origin.model_sha256, origin.version) == (answer["model_sha256"], answer["version"])
        assert (origin.dtype, origin.backend) == (answer["dtype"], answer["backend"])


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_file_says_nothing_where_it_is_not_to(gateway: RunningGateway, worker: TinyWorker, image_format: str) -> None:
    (image,) = gateway.ask(prompt="a secret", seed=7, format=image_format, metadata=False).json()["images"]
    data = b64decode(image["b64_json"])
    with Image.open(io.BytesIO(data)) as picture:
        assert not {"vqd", "parameters", "Software", "exif", "xmp"} & picture.info.keys()
    assert b"secret" not in data
    assert image["request"]["metadata"] is False


def test_a_picture_has_a_name(gateway: RunningGateway, worker: TinyWorker) -> None:
    asked = {"prompt": "Red Äpfel", "seed": 7, "image_index": 3, "format": "webp"}
    answer = gateway.http.post("/generate", json=asked, headers={"Accept": "image/webp"})
    name = "inline; filename=\"red-apfel-7-3.webp\"; filename*=UTF-8''red-%C3%A4pfel-7-3.webp"
    assert answer.headers["Content-Disposition"] == name
    assert (answer.headers["X-Vqd-Model"], answer.headers["X-Vqd-Image-Index"]) == ("shapes", "3")
    assert json.loads(answer.headers["X-Vqd-Parameters"])["image_index"] == 3
    job_id = gateway.ask(seed=7, n=3).json()["id"]
    named = [gateway.http.get(f"/jobs/{job_id}/images/{i}").headers["Content-Disposition"] for i in range(3)]
    assert named == [f'inline; filename="a-red-circle-7-{i}.png"' for i in range(3)]


def wrong(response: httpx.Response) -> list[str]:
    assert response.status_code == 422
    return [f"{error['field']}: {error['allowed']}" for error in response.json()["errors"]]


def test_what_is_wrong_is_named(gateway: RunningGateway, worker: TinyWorker) -> None:
    index = "image_index: a whole number from 0 to 2147483647"
    for value in (-1, 2**31, 0.5, "1", True):
        assert wrong(gateway.ask(image_index=value)) == [index]
    assert wrong(gateway.ask(image_index=2**31 - 1, n=2)) == [index]
    assert gateway.ask(image_index=2**31 - 1).status_code == 200
    assert wrong(gateway.ask(metadata="no")) == ["metadata: true or false"]
    assert wrong(gateway.ask(purity_form="cubic")) == ["purity_form: one of linear, power, with sampler purity"]
    only = "final_resample: true or false, with sampler purity or uniform"
    assert wrong(gateway.ask(final_resample=1)) == [only]
    assert wrong(gateway.ask(sampler="ancestral", final_resample=True)) == [only]
    assert wrong(gateway.ask(sampler="uniform", purity_form="power")) == [
        "purity_form: one of linear, power, with sampler purity"
    ]
