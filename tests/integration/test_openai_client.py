"""The Images API, asked by the unmodified ``openai`` package of PyPI: pictures, streams, models."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from both_sides import failing
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    TEXT_TOKENS,
    TOKENS,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from openai import APIError, OpenAI
from openai_support import PROMPT, client_of, extra, opened

from service.provenance.origin import Origin, told_by
from service.settings import Settings

ROOT = Path(__file__).parents[2]
OPEN_WEBUI = {"model": "dall-e-2", "prompt": PROMPT, "n": 1, "size": "512x512", "response_format": "b64_json"}
"""What Open WebUI 0.6 sends when nothing but the address is set: routers/images.py, image_generations."""


@pytest.fixture
def client(gateway: RunningGateway, worker: TinyWorker) -> Iterator[OpenAI]:
    with client_of(gateway) as client:
        yield client


def test_a_picture_with_what_was_really_used(client: OpenAI, gateway: RunningGateway) -> None:
    answer = client.images.generate(prompt=PROMPT, extra_body={"seed": 7, "guidance_scale": 2.5})
    (picture,) = answer.data or []
    assert opened(picture.b64_json or "").getpixel((0, 0)) == (7, 0, 0)
    assert (picture.url, picture.revised_prompt) == (None, PROMPT)
    assert (answer.size, answer.output_format, answer.background) == ("64x64", "png", "opaque")
    usage = answer.usage
    assert usage
    assert (usage.input_tokens, usage.input_tokens_details.text_tokens) == (TEXT_TOKENS, TEXT_TOKENS)
    assert (usage.output_tokens, usage.total_tokens) == (TOKENS, TOKENS + TEXT_TOKENS)
    job = gateway.job(extra(answer, "id"))
    assert (job["parameters"]["seed"], job["parameters"]["guidance_scale"]) == (7, 2.5)
    assert extra(answer, "parameters") == job["parameters"]
    assert (extra(picture, "seed"), answer.created) == (7, job["finished_ms"] // 1000)
    assert "scaling" not in (answer.model_extra or {})


def test_several_pictures_at_addresses(client: OpenAI, gateway: RunningGateway) -> None:
    answer = client.images.generate(prompt=PROMPT, n=3, response_format="url", output_format="webp")
    pictures = answer.data or []
    addresses = [picture.url or "" for picture in pictures]
    assert len(addresses) == 3
    assert {picture.b64_json for picture in pictures} == {None}
    for address in addresses:
        assert opened(httpx.get(address).content).format == "WEBP"
    assert answer.usage
    assert answer.usage.output_tokens == 3 * TOKENS


def test_a_size_is_a_whole_multiple(client: OpenAI, gateway: RunningGateway) -> None:
    answer = client.images.generate(prompt=PROMPT, size="1024x1024", output_format="jpeg", output_compression=50)
    picture = opened((answer.data or [])[0].b64_json or "")
    assert (picture.size, picture.format) == ((1024, 1024), "JPEG")
    assert (answer.size, answer.output_format) == ("1024x1024", "jpeg")
    assert (extra(answer, "scaling"), extra(answer, "model_size")) == ("lanczos", "64x64")


def test_a_scaled_file_says_what_made_it(client: OpenAI, gateway: RunningGateway) -> None:
    for image_format in ("png", "jpeg", "webp"):
        answer = client.images.generate(prompt=PROMPT, size="128x128", output_format=image_format)
        (picture,) = answer.data or []
        origin = Origin.model_validate_json(told_by(opened(picture.b64_json or "")) or "")
        assert (origin.tokens_sha256, origin.request) == (extra(picture, "tokens_sha256"), extra(picture, "request"))
        again = gateway.http.post("/generate", json=origin.request).raise_for_status().json()
        assert again["images"][0]["tokens_sha256"] == origin.tokens_sha256


def test_a_scaled_picture_has_an_address(client: OpenAI, gateway: RunningGateway) -> None:
    answer = client.images.generate(prompt=PROMPT, size="128x128", response_format="url", output_format="jpeg")
    address = (answer.data or [])[0].url or ""
    response = httpx.get(address)
    assert (opened(response.content).size, response.headers["Content-Type"]) == ((128, 128), "image/jpeg")
    wrong = httpx.get(address.replace("size=128x128", "size=130x128"))
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "size")


def test_what_open_webui_sends(gateway: RunningGateway, worker: TinyWorker) -> None:
    response = gateway.http.post("/v1/images/generations", json=OPEN_WEBUI, headers={"Authorization": "Bearer sk-none"})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert opened(answer["data"][0]["b64_json"]).size == (512, 512)
    assert answer["model"] == worker.model.name


def test_the_example_of_the_page(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "http-api.md").read_text()
    (example,) = re.findall(r"```python\n(import base64, pathlib, openai\n.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("http://localhost:8080", gateway.url), {})
    assert [opened(path.read_bytes()).size for path in sorted(tmp_path.glob("apple-*.png"))] == [(512, 512)] * 2


def test_a_stream(client: OpenAI, gateway: RunningGateway) -> None:
    events = list(client.images.generate(prompt=PROMPT, n=2, stream=True, partial_images=2, extra_body={"seed": 3}))
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [opened(event.b64_json).getpixel((0, 0)) for event in events] == [(3, 0, 0), (4, 0, 0)]
    assert [(event.size, event.quality, event.output_format) for event in events] == [("64x64", "auto", "png")] * 2
    assert [event.usage.input_tokens for event in events if event.type.endswith("completed")] == [TEXT_TOKENS, 0]
    assert {extra(event, "job") for event in events} == {extra(events[0], "job")}


def test_an_error_in_a_stream(client: OpenAI, worker: TinyWorker) -> None:
    worker.failure = failing("out of colours")
    with pytest.raises(APIError, match="out of colours") as caught:
        list(client.images.generate(prompt=PROMPT, stream=True))
    assert caught.value.code == "inference-failed"


@pytest.mark.parametrize("keep", [False, True])
def test_who_leaves_a_stream_takes_the_job_with_them(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, keep: bool
) -> None:
    worker.hold.set()
    headers = {"Idempotency-Key": "mine"} if keep else {}
    stream = client.images.generate(prompt=PROMPT, stream=True, extra_headers=headers)
    (job_id,) = until(lambda: worker.taken)
    stream.close()
    if keep:
        until(lambda: gateway.gateway.feeds.listeners == 0)
        worker.hold.clear()
    assert until(lambda: worker.ended.get(job_id)) == ("succeeded" if keep else "cancelled")
    assert gateway.metric("vqd_http_hangups_total") == (not keep)


def test_who_hangs_up_takes_the_job_with_them(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/images/generations", json={"prompt": PROMPT}, timeout=httpx.Timeout(5, read=0.5))
    (job_id,) = until(lambda: worker.taken)
    assert until(lambda: worker.ended.get(job_id)) == "cancelled"


def test_an_idempotency_key_makes_one_job(client: OpenAI, worker: TinyWorker) -> None:
    answers = [client.images.generate(prompt=PROMPT, extra_headers={"Idempotency-Key": "mine"}) for _ in range(2)]
    assert extra(answers[0], "id") == extra(answers[1], "id")
    assert len(worker.taken) == 1


def test_models(client: OpenAI, gateway: RunningGateway) -> None:
    (listed,) = client.models.list().data
    assert (listed.id, listed.object, listed.created, listed.owned_by) == ("shapes", "model", 0, "vqd")
    model = client.models.retrieve("shapes")
    assert model == listed
    assert extra(model, "ranges")["n"] == {"minimum": 1, "maximum": 4}


def test_scaling_may_be_another_or_none(settings: Settings) -> None:
    for scaling, status in (("nearest", 200), ("off", 422)):
        running = RunningGateway(settings.model_copy(update={"openai_scaling": scaling}))
        tiny = TinyWorker(settings)
        try:
            until(lambda: running.http.get("/readyz").status_code == 200)  # noqa: B023
            response = running.http.post("/v1/images/generations", json={"prompt": PROMPT, "size": "128x128"})
            assert response.status_code == status, response.text
            if status == 200:
                assert response.json()["scaling"] == scaling
            else:
                assert response.json()["error"]["message"].endswith("(allowed: auto or 64x64)")
        finally:
            tiny.close()
            running.close()


def test_several_at_once(client: OpenAI, worker: TinyWorker) -> None:
    """They are rendered beside each other, and each gets its own."""
    answers: dict[int, int] = {}

    def ask(seed: int) -> None:
        answer = client.images.generate(prompt=PROMPT, size="256x256", extra_body={"seed": seed})
        answers[seed] = opened((answer.data or [])[0].b64_json or "").getpixel((128, 128))[0]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {seed: seed for seed in range(8)}
