"""Pictures changed by the unmodified ``openai`` package: gateway, a worker process, and the shipped fake of Triton."""

from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
import redis
from fleet import SHAPES, Fleet, serving
from openai_support import extra, opened
from picture_files import UInt8, file_of, half_mask, noise
from PIL import Image

SIZE = SHAPES.image_width
IMAGE = noise(SIZE, SIZE)
KEPT = half_mask(SIZE) == 0
PROMPT = "a red circle"


def transparent(mask: UInt8) -> bytes:
    """As OpenAI wants a mask: transparent where it is white."""
    return file_of(np.dstack([noise(SIZE, SIZE), 255 - mask]))


@pytest.fixture(scope="module")
def http(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with redis.Redis.from_url(redis_server) as store:
        store.flushall()  # of what other tests left
    fleet = Fleet(redis_server, tmp_path_factory.mktemp("fleet"))
    try:
        fleet.start_worker()
        with serving(fleet) as client:
            yield client
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


def pixels(picture: Image.Image) -> UInt8:
    return np.array(picture.convert("RGB"))


def test_what_a_mask_keeps_stays_exactly(client: openai.OpenAI) -> None:
    answer = client.images.edit(
        image=("cat.png", file_of(IMAGE)),
        mask=("mask.png", transparent(half_mask(SIZE))),
        prompt=PROMPT,
        n=2,
        response_format="b64_json",
        extra_body={"seed": 7},
    )
    made = [pixels(opened(picture.b64_json or "")) for picture in answer.data or []]
    assert len(made) == 2
    for picture in made:
        assert (picture[KEPT] == IMAGE[KEPT]).all()
        assert (picture[~KEPT] != IMAGE[~KEPT]).any()
    usage = answer.usage
    assert usage
    assert usage.input_tokens_details.image_tokens == SHAPES.tokens
    assert usage.input_tokens == SHAPES.tokens + usage.input_tokens_details.text_tokens > SHAPES.tokens
    assert usage.output_tokens == 2 * SHAPES.tokens


def test_the_same_without_a_mask_and_as_the_only_one_of_a_list(client: openai.OpenAI) -> None:
    image, size = [("a.png", file_of(IMAGE))], f"{2 * SIZE}x{2 * SIZE}"
    answer = client.images.edit(image=image, prompt=PROMPT, size=size, extra_body={"strength": 0.5})
    (picture,) = answer.data or []
    assert opened(picture.b64_json or "").size == (2 * SIZE, 2 * SIZE)
    assert extra(picture, "request")["strength"] == 0.5


def test_a_stream_of_an_edit(client: openai.OpenAI) -> None:
    events = list(client.images.edit(image=("a.png", file_of(IMAGE)), prompt=PROMPT, stream=True))
    assert [event.type for event in events] == ["image_edit.completed"]


def test_partial_pictures_of_an_edit(client: openai.OpenAI) -> None:
    """Half of it stays; of the other half 32 evaluations are seen on their way."""
    files = {"image": ("a.png", file_of(IMAGE)), "mask": ("m.png", transparent(half_mask(SIZE)))}
    asked = {"prompt": PROMPT, "stream": True, "partial_images": 3, "extra_body": {"tokens_per_step": 1, "steps": 64}}
    *partials, completed = client.images.edit(**files, **asked)  # type: ignore[call-overload]
    assert completed.type == "image_edit.completed"
    assert {event.type for event in partials} == {"image_edit.partial_image"}
    assert [event.partial_image_index for event in partials] == [*range(len(partials))]
    assert 1 <= len(partials) <= 3
    assert {opened(event.b64_json).size for event in partials} == {(SIZE, SIZE)}


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"image": [("a.png", file_of(IMAGE)), ("b.png", file_of(IMAGE))]}, "image", "is given more than once"),
        ({"image": ("a.gif", file_of(IMAGE, "gif"))}, "image", "PNG, JPEG or WebP"),
        ({"mask": ("m.png", file_of(half_mask(SIZE // 2)))}, "mask", f"{SIZE}x{SIZE} pixels, as the image has"),
        ({"input_fidelity": "high"}, "input_fidelity", "say strength"),
        ({"quality": "high"}, "quality", "there is one quality"),
        ({"size": "7x7"}, "size", f"auto, {SIZE}x{SIZE}"),
    ],
)
def test_what_means_nothing_here_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, object], param: str, said: str
) -> None:
    asked = {"image": ("a.png", file_of(IMAGE)), "prompt": PROMPT} | fields
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.images.edit(**asked)  # type: ignore[call-overload]
    assert caught.value.param == param
    assert said in caught.value.message


def test_a_picture_is_needed(http: httpx.Client) -> None:
    response = http.post("/v1/images/edits", json={"prompt": PROMPT})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "image")
