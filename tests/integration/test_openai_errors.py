"""Every class of error that the unmodified ``openai`` package knows, and whether it asks again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import openai
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
from key_support import Keyring
from openai_support import PROMPT, client_of

from service.settings import Settings
from service.sockets import free_port


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with client_of(gateway) as client:
        yield client


def requests(gateway: RunningGateway, status: int) -> float:
    """How many were answered with it."""
    return gateway.metric(f'vqd_http_requests_total{{method="POST",route="/v1/images/generations",status="{status}"}}')


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"n": 9}, "n", "a whole number from 1 to 4"),
        ({"n": 11}, "n", "less than or equal to 10"),
        ({"size": "100x100"}, "size", "auto, 64x64, or a whole multiple of it up to 4096x4096"),
        ({"size": "128x192"}, "size", "128x192 cannot be made of 64x64"),
        ({"size": "4160x4160"}, "size", "up to 4096x4096"),
        ({"size": "4096x4096", "n": 4}, "size", "up to 2048x2048 for 4 pictures"),
        ({"size": "large"}, "size", "as WIDTHxHEIGHT"),
        ({"quality": "hd"}, "quality", "there is one quality"),
        ({"style": "vivid"}, "style", "say it in the prompt"),
        ({"background": "transparent"}, "background", "auto, opaque, or nothing"),
        ({"moderation": "low"}, "moderation", "there is none"),
        ({"output_format": "gif"}, "output_format", "one of png, jpeg, webp"),
        ({"output_format": "png", "extra_body": {"format": "webp"}}, "format", "is not the same as output_format"),
        ({"output_compression": 50}, "output_compression", "png does not"),
        ({"output_compression": 101, "output_format": "jpeg"}, "output_compression", "a whole number from 0 to 100"),
        ({"partial_images": 2}, "partial_images", "needs stream: true"),
        ({"stream": True, "response_format": "url"}, "response_format", "a stream has the pictures in it"),
        ({"extra_body": {"colour": "red"}}, "colour", "there is no such field"),
        ({"n": 11}, "n", "a whole number from 1 to 10"),
        ({"style": "vivid"}, "style", "takes no value here"),
        ({"extra_body": {"guidence_scale": 3}}, "guidence_scale", "did you mean guidance_scale?"),
        ({"extra_body": {"guidance_scale": 99}}, "guidance_scale", "a number from 0 to 20"),
        ({"frame_count": 4}, "frame_count", "there is no such field"),
    ],
)
def test_what_means_nothing_here_is_refused_by_name(
    client: openai.OpenAI, worker: TinyWorker, fields: dict[str, object], param: str, said: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.images.generate(prompt=PROMPT, **fields)  # type: ignore[call-overload]
    error = caught.value
    assert (error.param, error.type, error.code) == (param, "invalid_request_error", "invalid-request")
    assert said in error.message
    assert worker.taken == []


def test_what_is_neutral_is_taken(client: openai.OpenAI, worker: TinyWorker) -> None:
    client.images.generate(
        prompt=PROMPT,
        quality="standard",
        background="opaque",
        moderation="auto",
        output_compression=100,
        size="auto",
        user="somebody",
        safety_identifier="somebody",
        stream=False,
        partial_images=0,
    )


def test_an_unknown_model(client: openai.OpenAI, worker: TinyWorker) -> None:
    for ask in (lambda: client.images.generate(prompt=PROMPT, model="nothing"), lambda: client.models.retrieve("no")):
        with pytest.raises(openai.NotFoundError, match="served: shapes") as caught:
            ask()
        assert (caught.value.code, caught.value.request_id) == (
            "not-found",
            caught.value.response.headers["x-request-id"],
        )


def test_a_request_that_is_none(client: openai.OpenAI, worker: TinyWorker) -> None:
    """All else that is wrong with one is a 422. (In Node nobody can send such a head.)"""
    with pytest.raises(openai.BadRequestError, match="Host") as caught:
        client.images.generate(prompt=PROMPT, extra_headers={"Host": "localhost:x"})
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_no_answer_in_the_time_that_the_client_gives(client: openai.OpenAI, worker: TinyWorker) -> None:
    """Then it is gone, and its job with it."""
    worker.hold.set()
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt=PROMPT, timeout=0.5)
    (job_id,) = until(lambda: worker.taken)
    assert until(lambda: worker.ended.get(job_id)) == "cancelled"


def test_nobody_answers() -> None:
    unused = openai.OpenAI(base_url=f"http://127.0.0.1:{free_port()}/v1", api_key="none is needed", max_retries=0)
    with unused as client, pytest.raises(openai.APIConnectionError) as caught:
        client.images.generate(prompt=PROMPT)
    assert not isinstance(caught.value, openai.APITimeoutError)


def test_each_class_of_theirs_is_met_here() -> None:
    """One that a later version adds shows itself: it needs a test above or below."""
    met = ("BadRequest", "Authentication", "PermissionDenied", "NotFound", "Conflict", "UnprocessableEntity")
    more = ("RateLimit", "InternalServer")
    assert {kind.__name__ for kind in openai.APIStatusError.__subclasses__()} == {f"{name}Error" for name in met + more}
    assert openai.APIConnectionError.__subclasses__() == [openai.APITimeoutError]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_what_of_theirs_is_not_here_is_not_found_however_large_it_is(
    client: openai.OpenAI, gateway: RunningGateway
) -> None:
    large = "a" * 2 * gateway.gateway.settings.max_body_bytes
    asked: dict[str, Callable[[], object]] = {
        "/v1/images/variations": lambda: client.images.create_variation(image=large.encode()),
        "/v1/chat/completions": lambda: client.chat.completions.create(
            model="shapes", messages=[{"role": "user", "content": large}]
        ),
    }
    for path, ask in asked.items():
        with pytest.raises(openai.NotFoundError, match=f"there is nothing at {path}; GET /docs") as caught:
            ask()
        assert caught.value.type == "invalid_request_error"
    assert gateway.http.post("/v2/images/variations").json()["status"] == 404, "a problem, as everywhere else"


def test_a_body_that_is_no_json_or_too_large(gateway: RunningGateway) -> None:
    for content, status in (("{", 422), (f'{{"prompt": "{"a" * 5000}"}}', 413)):
        headers = {"Content-Type": "application/json"}
        response = gateway.http.post("/v1/images/generations", content=content, headers=headers)
        assert response.status_code == status
        assert set(response.json()) == {"error"}


def test_a_key_is_missing_or_may_not(settings: Settings) -> None:
    with closing(Keyring(settings)) as ring, closing(RunningGateway(settings)) as gateway:
        reader = ring.make("read")
        for key, kind, code in (
            ("wrong", openai.AuthenticationError, "unauthorized"),
            (reader.token, openai.PermissionDeniedError, "forbidden"),
        ):
            with client_of(gateway, key) as client, pytest.raises(kind) as caught:
                client.images.generate(prompt=PROMPT)
            assert caught.value.code == code
            assert caught.value.request_id


def test_a_limit_says_when_to_come_again(settings: Settings) -> None:
    limited = settings.model_copy(update={"key_jobs": 1})
    with closing(Keyring(settings)) as ring, closing(RunningGateway(limited)) as gateway:
        minted = ring.make("generate")
        with closing(TinyWorker(settings)) as worker:
            worker.hold.set()
            job = {"prompt": PROMPT}
            headers = {"Authorization": f"Bearer {minted.token}"}
            gateway.http.post("/generate", json=job, headers=headers | {"Prefer": "respond-async"}).raise_for_status()
            with client_of(gateway, minted.token) as client, pytest.raises(openai.RateLimitError) as caught:
                client.images.generate(prompt=PROMPT)
            headers = caught.value.response.headers
            assert (caught.value.type, headers["x-should-retry"]) == ("rate_limit_error", "true")
            assert int(headers["retry-after"]) >= 1
            assert headers["ratelimit-policy"]
            worker.hold.clear()


def test_no_worker_is_worth_another_try(gateway: RunningGateway) -> None:
    with client_of(gateway) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt=PROMPT)
    assert (caught.value.status_code, caught.value.type, caught.value.code) == (503, "server_error", "unavailable")
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("5", "true")


def test_a_failure_is_not_tried_again(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.failure = failing("out of colours")
    with client_of(gateway, retries=3) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt=PROMPT)
    assert (caught.value.code, caught.value.status_code) == ("inference-failed", 500)
    assert len(worker.taken) == 1
    job_id = caught.value.body["job"]  # type: ignore[index]
    assert gateway.job(job_id)["error"] == "out of colours"


def test_a_conflict_is_not_tried_again(gateway: RunningGateway, worker: TinyWorker) -> None:
    """Somebody cancels the job meanwhile."""
    worker.hold.set()
    cancelling = threading.Thread(target=lambda: gateway.http.delete(f"/jobs/{until(lambda: worker.taken)[0]}"))
    cancelling.start()
    with client_of(gateway, retries=3) as client, pytest.raises(openai.ConflictError, match="cancelled"):
        client.images.generate(prompt=PROMPT)
    cancelling.join()
    assert requests(gateway, 409) == 1


def test_pictures_that_take_longer_than_one_may_wait(settings: Settings) -> None:
    """With an Idempotency-Key another try finds the job again; without one it would only make another."""
    hasty = settings.model_copy(update={"sync_wait_s": 0.3})
    with closing(RunningGateway(hasty)) as gateway, closing(TinyWorker(settings)) as worker:
        until(lambda: gateway.http.get("/readyz").status_code == 200)
        worker.hold.set()
        with client_of(gateway, retries=5) as client, pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt=PROMPT)
        assert (caught.value.status_code, caught.value.code) == (504, "still-running")
        assert requests(gateway, 504) == 1
        place = caught.value.response.headers["location"]
        assert gateway.http.get(place).json()["status"] == "running"
        worker.hold.clear()
        until(lambda: gateway.http.get(place).json()["status"] == "succeeded")

        worker.hold.set()
        gateway.background_call(lambda: gateway.loop.call_later(1.0, worker.hold.clear))
        with client_of(gateway, retries=9) as client:
            answer = client.images.generate(prompt=PROMPT, extra_headers={"Idempotency-Key": "mine"})
        assert answer.data
        assert requests(gateway, 504) > 1
        assert len(worker.taken) == 2
