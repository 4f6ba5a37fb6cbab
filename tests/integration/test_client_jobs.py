"""``import vqd``, in both its forms: waiting, following, cancelling, and whatever goes wrong meanwhile."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from both_sides import failing
from client_support import Aside, client_of, either_client, either_kind  # noqa: F401  two are fixtures
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from key_support import Keyring

import vqd
from service.settings import Settings
from service.sockets import free_port

PROMPT = "a red circle"


@pytest.fixture
def keyring(settings: Settings) -> Iterator[Keyring]:
    keyring = Keyring(settings)
    yield keyring
    keyring.close()


def status(gateway: RunningGateway, job_id: str) -> str:
    return str(gateway.job(job_id)["status"])


def test_a_job_runs_by_itself_and_is_followed(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job = client.submit(PROMPT, seed=7)
    with job.events() as events:
        first = next(events)
        assert (first.evaluation, first.evaluations, first.status) == (1, 4, vqd.Status.RUNNING)
        assert (job.status, job.answer["evaluation"]) == (vqd.Status.RUNNING, 1)
        until(lambda: gateway.gateway.feeds.listeners == 1)
        assert client.job(job.id).status is vqd.Status.RUNNING, "whoever follows may ask"
    until(lambda: gateway.gateway.feeds.listeners == 0)
    assert status(gateway, job.id) == "running", "who stops following does not stop the job"
    worker.hold.clear()
    assert [event.evaluation for event in job.events()][:2] == [1, 2], "from its beginning"
    assert job.over
    assert job.wait().images[0].seed == 7
    assert repr(getattr(job, "thing", job)).endswith(f"Job {job.id} succeeded>")


def test_a_loop_that_is_left_closes_its_connection(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    for _ in client.submit(PROMPT).events():
        until(lambda: gateway.gateway.feeds.listeners == 1)
        break
    until(lambda: gateway.gateway.feeds.listeners == 0)


def test_a_stream_ends_with_the_pictures(client: Any, worker: TinyWorker) -> None:
    *running, last = client.stream(PROMPT, n=2, seed=7)
    assert [event.status for event in running] == [vqd.Status.RUNNING] * 2
    assert {(event.pictures, event.preview) for event in running} == {(None, None)}
    assert [image.image_index for image in last.pictures.images] == [0, 1]
    views = [worker.background.call(worker.queue.view(job)) for job in worker.taken]
    assert not any(view.previews for view in views)
    worker.failure = failing("out of colours")
    with pytest.raises(vqd.InferenceFailed, match="out of colours"):
        list(client.stream(PROMPT))


def test_previews_are_in_the_request_so_that_a_short_job_has_some(client: Any, worker: TinyWorker) -> None:
    worker.hold.set()
    with client.stream(PROMPT, previews="purity") as events:
        next(events)
        assert worker.background.call(worker.queue.view(worker.taken[0])).previews


def test_a_stream_that_is_left_cancels_its_job(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    with client.stream(PROMPT) as events:
        next(events)
    until(lambda: status(gateway, worker.taken[0]) == "cancelled")
    assert len(list(client.jobs())) == 1


def test_a_wait_has_an_end(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job, began_s = client.submit(PROMPT), time.monotonic()
    with pytest.raises(vqd.StillRunning, match=rf"^job {job.id} is not done after 0\.3 s$"):
        job.wait(timeout_s=0.3)
    assert 0.3 <= time.monotonic() - began_s < 5
    assert status(gateway, job.id) == "running"
    with pytest.raises(vqd.StillRunning, match=rf"^job {job.id} has no pictures yet: it is running$"):
        job.pictures()
    worker.hold.clear()
    assert job.wait(timeout_s=30).id == job.id
    worker.hold.set()
    with pytest.raises(vqd.StillRunning, match="not done after"):
        client.generate(PROMPT, timeout_s=0.3)
    until(lambda: status(gateway, worker.taken[1]) == "cancelled")


def test_a_job_is_cancelled_once(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job = client.submit(PROMPT)
    until(lambda: worker.taken)
    job.cancel()
    until(lambda: worker.ended)
    assert job.refresh().status is vqd.Status.CANCELLED
    with pytest.raises(vqd.Conflict, match="the job is over"):
        job.cancel()
    with pytest.raises(vqd.Conflict, match=rf"^job {job.id} was cancelled$"):
        job.wait()


def test_events_go_on_where_a_lost_connection_ended(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job = client.submit(PROMPT)
    following = Aside(lambda: [event.evaluation for event in job.events()])
    until(lambda: gateway.gateway.feeds.listeners)
    (feed,) = gateway.gateway.feeds.feeds.values()
    gateway.background_call(feed.end)
    until(lambda: not feed.listeners)
    worker.hold.clear()
    seen = following.join()
    assert seen[:2] == [1, 2]
    assert len(seen) == 3, "each once"


def test_a_limit_is_waited_for_while_there_is_time(
    kind: str, gateway: RunningGateway, worker: TinyWorker, settings: Settings, keyring: Keyring
) -> None:
    limited = RunningGateway(settings.model_copy(update={"key_jobs": 1}))
    with client_of(kind, limited.url, api_key=keyring.make().token) as mine:
        worker.hold.set()
        first, began_s = mine.submit(PROMPT), time.monotonic()
        with pytest.raises(vqd.QuotaExceeded) as refused:
            mine.submit(PROMPT, timeout_s=2)
        assert refused.value.retry_after_s > 2
        assert time.monotonic() - began_s < 2, "it would have been in vain"
        second = Aside(lambda: mine.generate(PROMPT, seed=8))
        worker.hold.clear()
        assert first.wait().images
        assert second.join().images[0].seed == 8
    limited.close()


def test_a_wrong_key_is_named_and_never_shown(
    kind: str, gateway: RunningGateway, worker: TinyWorker, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, reading = keyring.make(), keyring.make("read")
    with client_of(kind, gateway.url, api_key=reading.token) as mine, pytest.raises(vqd.Forbidden):
        mine.generate(PROMPT)
    with client_of(kind, gateway.url, api_key="wrong key") as mine, pytest.raises(vqd.Unauthorized) as caught:
        mine.generate(PROMPT)
    assert "wrong key" not in f"{caught.value!r} {mine!r} {vars(mine)}"
    assert "VQD_API_KEY" not in str(caught.value), "there is one"
    monkeypatch.setenv("VQD_API_KEY", good.token)
    with client_of(kind, gateway.url) as mine:
        assert mine.generate(PROMPT).images
    with (
        client_of(kind, gateway.url, api_key="") as mine,
        pytest.raises(vqd.Unauthorized, match="no key was given"),
    ):
        mine.models()


def test_nobody_there_is_said_at_once(kind: str) -> None:
    url, began_s = f"http://user:secret@127.0.0.1:{free_port()}", time.monotonic()
    with client_of(kind, url) as client, pytest.raises(vqd.Unavailable, match="vqd up") as caught:
        client.generate(PROMPT)
    assert time.monotonic() - began_s < 5
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (" http://localhost", "it begins with neither"),
        ("http://:8080", "it names no host"),
        ("http://localhost?key=1", r"a path may follow the host, but no \?"),
        ("http://.", "encoding with 'idna'"),
        ("http://user:sec/ret@localhost", "Invalid port"),
    ],
)
def test_what_is_an_address_only_at_a_glance_is_named(kind: str, url: str, why: str) -> None:
    with pytest.raises(vqd.SetupError, match=f"cannot be reached: {why}") as caught:
        client_of(kind, url)
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize("key", ["k3y\n", " k3y", "k\0003y", "kéy"])
def test_what_can_be_no_key_is_refused_and_not_shown(kind: str, key: str) -> None:
    with pytest.raises(vqd.SetupError, match=r"^the API key has ") as caught:
        client_of(kind, "http://localhost", api_key=key)
    assert "3y" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", ""])
def test_what_is_no_address_is_named(kind: str, url: str) -> None:
    with pytest.raises(vqd.SetupError, match=rf"^{url} cannot be reached: it begins with neither http:// nor https://"):
        client_of(kind, url)
    with pytest.raises(vqd.SetupError, match=r"cannot be reached: it names no host$"):
        client_of(kind, "http://")
