"""``import vqd``, in both its forms, with a real worker: previews in a stream, several at once, an edit with a mask."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from client_support import client_of, either_kind  # noqa: F401  the last is a fixture
from fleet import Fleet, serving
from picture_files import file_of, half_mask, noise, pixels_in
from PIL import Image

SLOW = {"steps": 64, "tokens_per_step": 1}
SIZE = 64


@pytest.fixture(scope="module")
def service(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with redis.Redis.from_url(redis_server) as store:
        store.flushall()
    fleet = Fleet(redis_server, tmp_path_factory.mktemp("fleet"), preview_every=2)
    fleet.triton.delay_s = 0.03  # or it would be over before anything is shown
    try:
        fleet.start_worker()
        with serving(fleet) as client:
            yield client
    finally:
        fleet.close()


@pytest.fixture
def client(kind: str, service: httpx.Client) -> Iterator[Any]:
    with client_of(kind, str(service.base_url)) as client:
        yield client


def test_a_stream_shows_the_pictures_so_far(client: Any) -> None:
    *running, last = client.stream("a red circle", previews="purity", n=2, **SLOW)
    shown = [preview for event in running for preview in event.previews]
    assert {preview.index for preview in shown} == {0, 1}
    with Image.open(io.BytesIO(shown[0].png)) as picture, Image.open(io.BytesIO(shown[0].purity_map)) as purity:
        assert (picture.format, picture.mode, purity.mode) == ("PNG", "RGB", "L")
        assert max(picture.size) <= 64
    assert next(event.preview for event in running if event.previews) == shown[0].png
    assert len(last.pictures.images) == 2
    assert not any(event.previews for event in client.stream("a red circle", **SLOW))


def test_several_wait_at_once_and_each_gets_its_own(client: Any) -> None:
    jobs = [client.submit("a red circle", seed=seed) for seed in range(4)]
    made = [job.wait(timeout_s=60) for job in jobs]
    assert [pictures.images[0].seed for pictures in made] == [0, 1, 2, 3]
    assert len({pictures.images[0].tokens_sha256 for pictures in made}) == 4


def test_an_edit_keeps_what_its_mask_keeps(client: Any) -> None:
    before, mask = noise(SIZE, SIZE), half_mask(SIZE)
    made = client.edit("a red circle", image=Image.fromarray(before), mask=file_of(mask), seed=7)
    after = pixels_in(made.images[0].bytes)
    assert np.array_equal(after[mask == 0], before[mask == 0])
    assert not np.array_equal(after, before)
    again = client.generate(**made.images[0].request, image=Image.fromarray(before), mask=file_of(mask))
    assert again.images[0].tokens_sha256 == made.images[0].tokens_sha256
