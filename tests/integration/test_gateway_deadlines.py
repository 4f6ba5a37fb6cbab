"""A deadline is kept while the job waits, and is the client's choice: never a fault of the service's."""

import time
from collections.abc import Iterator

import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.client.saving import generate
from service.errors import DeadlinePassed, GivenUp, InferenceFailed, OtherVersion
from service.messages import Failure
from service.settings import Settings

TYPE = "urn:vqd:problem:deadline-passed"


@pytest.fixture
def idle(settings: Settings, gateway: RunningGateway, worker: TinyWorker) -> Iterator[TinyWorker]:
    """A worker that is registered and takes nothing."""
    worker.stop()
    return worker


@pytest.mark.parametrize("deadline_s", [5e-324, 0.001, 0.3])
def test_a_job_that_waits_ends_at_its_deadline(gateway: RunningGateway, idle: TinyWorker, deadline_s: float) -> None:
    began_s = time.monotonic()
    answer = gateway.ask(deadline_s=deadline_s)
    assert deadline_s <= time.monotonic() - began_s < deadline_s + 1.5
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE)
    assert answer.json()["detail"] == "the deadline passed before the job was finished"
    job = gateway.job(answer.json()["job"])
    assert (job["status"], job["error_type"]) == ("failed", TYPE)
    assert gateway.metric('vqd_http_requests_total{method="POST",route="/generate",status="500"}') == 0
    assert gateway.metric('vqd_queue_depth{model="shapes",priority="interactive"}') == 0


def test_a_late_job_ends_when_anyone_looks(gateway: RunningGateway, idle: TinyWorker) -> None:
    seen, followed = gateway.start(deadline_s=0.01), gateway.start(deadline_s=0.5)
    until(lambda: gateway.job(seen)["status"] == "failed")
    events = gateway.http.get(f"/jobs/{followed}/events").text
    assert "event: failed" in events
    assert gateway.job(followed)["attempts"] == 0


def test_a_late_job_never_runs(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    gateway.start()
    until(lambda: worker.taken)
    late = gateway.ask(deadline_s=0.01).json()["job"]
    worker.hold.clear()
    assert gateway.ask().status_code == 200
    assert late not in worker.taken


def test_no_answer_waits_for_a_worker_that_is_silent_beyond_the_deadline(
    gateway: RunningGateway, worker: TinyWorker
) -> None:
    worker.hold.set()
    began_s = time.monotonic()
    worker.silent.set()
    answer = gateway.ask(deadline_s=0.3)
    assert time.monotonic() - began_s < 3
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE)
    worker.silent.clear()
    until(lambda: gateway.job(answer.json()["job"]).get("error_type") == TYPE)


def test_a_deadline_that_is_kept_changes_nothing(gateway: RunningGateway, worker: TinyWorker) -> None:
    assert gateway.ask(deadline_s=60).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status", "slug"),
    [
        ("deadline-passed", 409, "deadline-passed"),
        ("given-up", 500, "given-up"),
        ("other-version", 503, "other-version"),
        ("inference-failed", 500, "inference-failed"),
        ("invalid-request", 500, "inference-failed"),  # it names no field: not the client's
        ("of-a-newer-version", 500, "inference-failed"),
    ],
)
def test_each_kind_of_failure_has_its_type(
    gateway: RunningGateway, worker: TinyWorker, kind: str, status: int, slug: str
) -> None:
    worker.failure = Failure(kind=kind, message="as told")
    answer = gateway.ask()
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"urn:vqd:problem:{slug}")
    assert gateway.job(problem["job"])["error_type"] == f"urn:vqd:problem:{slug}"


@pytest.mark.parametrize("kind", [DeadlinePassed, GivenUp, OtherVersion, InferenceFailed])
def test_the_client_raises_what_ended_the_job(
    gateway: RunningGateway, worker: TinyWorker, kind: type[Exception], tmp_path_factory: pytest.TempPathFactory
) -> None:
    worker.failure = Failure(kind=kind.slug, message="as told")  # type: ignore[attr-defined]
    with pytest.raises(kind, match="as told") as caught:
        generate(gateway.url, {"prompt": "a red circle"}, tmp_path_factory.mktemp("pictures"))
    assert type(caught.value) is kind
