"""One trace from the HTTP request to the stored picture: real processes, and a collector that decodes their spans."""

import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx
import pytest
from fleet import Fleet, serving
from gateway_harness import until

from service.lab.bench.spans import Collector, Span
from service.messages import Status
from service.sockets import free_port
from service.telemetry.otel import CLOSE_S
from service.worker.traces import MS, STEP_SPANS

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "from-the-client"}
AT_ONCE = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
"""Milliseconds; the SDK's own default is five seconds."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


class Traced:
    """A gateway and a worker that send their spans to ``endpoint``."""

    def __init__(self, redis_url: str, folder: Path, endpoint: str, **environment: str) -> None:
        self.fleet = Fleet(redis_url, folder, otlp_endpoint=endpoint)
        self.fleet.environment |= environment
        self.stack = ExitStack()
        self.stack.callback(self.fleet.close)
        with self.stack.pop_all() as stack:  # closed here if one of these fails
            self.worker = self.fleet.start_worker()
            self.http = stack.enter_context(serving(self.fleet))
            self.stack = stack.pop_all()
        self.gateway = self.fleet.others[0]

    def post(self, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
        return self.http.post("/generate", json={"prompt": "a red circle"} | fields, headers=headers)

    def stop(self) -> float:
        """End both as Kubernetes does; the longest time that one took."""
        return max(self.stop_one(process) for process in (self.worker, self.gateway))

    def stop_one(self, process: subprocess.Popen[bytes]) -> float:
        began_s = time.monotonic()
        process.terminate()
        assert process.wait(15) == 0
        return time.monotonic() - began_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()


@pytest.fixture
def traced(redis_url: str, tmp_path: Path, collector: Collector) -> Iterator[Traced]:
    with Traced(redis_url, tmp_path, collector.url, **AT_ONCE) as running:
        yield running


def spans_of(collector: Collector, job_id: str, last: str = "complete") -> dict[str, list[Span]]:
    """The job's spans by name, once the one named ``last`` and the request's are there."""

    def names() -> set[str]:
        return {span.name for span in collector.spans if span.attributes.get("vqd.job_id") == job_id}

    until(lambda: {last, "POST /generate"} <= names())
    return {name: [s for s in collector.named(name) if s.attributes["vqd.job_id"] == job_id] for name in names()}


def test_one_trace_from_the_request_to_the_picture(traced: Traced, collector: Collector) -> None:
    traced.fleet.triton.delay_s = 0.02
    posted_s = time.time()
    answer = traced.post(HEADERS, steps=6, n=2)
    assert answer.status_code == 200
    assert not {"traceparent", "request_id"} & answer.json().keys(), "ours, and no part of the public answer"
    job_id = answer.json()["id"]
    spans = spans_of(collector, job_id)
    (request,), (wait,), (encode,) = spans.pop("POST /generate"), spans.pop("queue wait"), spans.pop("encode")
    steps, decodes, (complete,) = spans.pop("diffusion_step"), spans.pop("decode"), spans.pop("complete")
    assert spans == {}
    (enqueue,), (answered,) = collector.named("enqueue"), collector.named("answer")
    assert {(span.trace, span.parent) for span in (enqueue, answered)} == {(TRACE, request.id)}
    assert request.began < enqueue.began < enqueue.ended < steps[0].began < answered.began < answered.ended
    assert (request.trace, request.parent) == (TRACE, CALLER)
    assert request.attributes["vqd.request_id"] == "from-the-client"
    assert request.attributes["http.response.status_code"] == 200
    for span in (wait, encode, *steps, *decodes, complete):
        assert (span.trace, span.parent, span.failed) == (TRACE, request.id, False)
        assert span.attributes["vqd.epoch"] == 1
    assert {request.resource["service.name"], wait.resource["service.name"]} == {"vqd-gateway", "vqd-worker"}
    # Redis says milliseconds, and was asked twice for the later one.
    view = traced.fleet.view(job_id)
    assert wait.began == view.job.created_ms * MS
    assert abs(wait.ended - view.started_ms * MS) <= MS
    assert posted_s * 1000 - 1 <= wait.began / MS <= encode.began / MS + 1
    assert wait.ended - MS <= encode.began < encode.ended <= steps[0].began
    assert steps[-1].ended <= decodes[0].began < complete.began < complete.ended
    assert all(earlier.ended <= later.began for earlier, later in itertools.pairwise(steps))
    assert all(span.ended - span.began >= 20 * MS for span in (encode, *steps, *decodes))
    facts = [{name.removeprefix("vqd."): value for name, value in span.attributes.items()} for span in steps]
    assert sum(fact["rows"] * fact["k"] for fact in facts) == 2 * 6
    assert [fact["evaluation"] for fact in facts] == [
        sum(f["rows"] * f["k"] for f in facts[:i]) for i in range(len(facts))
    ]
    assert complete.attributes["vqd.step_calls"] == len(steps)


def test_a_call_of_many_jobs_is_in_the_trace_of_each(traced: Traced, collector: Collector) -> None:
    traced.fleet.triton.delay_s = 0.05
    jobs = [traced.post({"Prefer": "respond-async"}, seed=seed, steps=8).json()["id"] for seed in range(4)]
    all_spans = [spans_of(collector, job_id) for job_id in jobs]
    assert len({spans["complete"][0].trace for spans in all_spans}) == 4
    steps = [spans["diffusion_step"] for spans in all_spans]
    shared = [span for of_job in steps for span in of_job if span.attributes["vqd.rows_of_call"] == 4]
    assert shared, "no call carried all four: the test proves nothing"
    assert {span.attributes["vqd.rows"] for span in shared} == {1}


def test_a_resumed_job_stays_in_its_trace(traced: Traced, collector: Collector) -> None:
    traced.fleet.triton.delay_s = 0.05
    job_id = traced.post(HEADERS | {"Prefer": "respond-async"}, steps=30).json()["id"]
    traced.fleet.wait_evaluation(job_id, 8)
    until(lambda: len(collector.named("diffusion_step")) >= 5)
    traced.worker.kill()
    traced.fleet.start_worker()
    traced.fleet.wait(job_id)
    spans = spans_of(collector, job_id)
    assert {span.trace for group in spans.values() for span in group} == {TRACE}
    assert len(spans["queue wait"]) == 1
    assert [span.attributes["vqd.epoch"] for span in spans["encode"]] == [1, 2]
    workers = {span.attributes["vqd.epoch"]: span.resource["service.instance.id"] for span in spans["diffusion_step"]}
    assert workers.keys() == {1, 2}
    assert workers[1] != workers[2]
    first_of_second = next(span for span in spans["diffusion_step"] if span.attributes["vqd.epoch"] == 2)
    assert first_of_second.attributes["vqd.evaluation"] > 0
    assert spans["complete"][0].attributes["vqd.epoch"] == 2


def test_a_handed_over_job_tells_so_before_its_worker_ends(
    redis_url: str, tmp_path: Path, collector: Collector
) -> None:
    """The spans of the last moment are sent, however long batches are collected."""
    with Traced(redis_url, tmp_path, collector.url, OTEL_BSP_SCHEDULE_DELAY="60000") as traced:
        traced.fleet.triton.delay_s = 0.05
        job_id = traced.post(HEADERS | {"Prefer": "respond-async"}, steps=60).json()["id"]
        traced.fleet.wait_evaluation(job_id, 3)
        assert collector.spans == []
        traced.stop()
        spans = spans_of(collector, job_id, last="hand over")
        assert "complete" not in spans
        assert spans["hand over"][0].trace == TRACE


def test_failed_calls_show_as_errors(traced: Traced, collector: Collector) -> None:
    traced.fleet.triton.fail_next(calls=2)  # together with nobody, so its own call fails again and so does the job
    job_id = traced.post({"Prefer": "respond-async"}).json()["id"]
    traced.fleet.wait(job_id, Status.FAILED)
    until(lambda: collector.named("diffusion_step"))
    failed = [span for span in collector.named("diffusion_step") if span.failed]
    assert failed
    assert {span.attributes["error.type"] for span in failed} == {"InferenceFailed"}


def test_the_number_of_spans_is_bounded(redis_url: str, tmp_path: Path, collector: Collector) -> None:
    one_owner = {"VQD_MAX_BATCH": "1", "VQD_LEASE_MS": "60000"}  # a worker that falls silent on a busy machine keeps it
    with Traced(redis_url, tmp_path, collector.url, **one_owner, **AT_ONCE) as traced:
        spans = spans_of(collector, traced.post(steps=50, n=4).json()["id"])
        assert len(spans["diffusion_step"]) == STEP_SPANS
        assert spans["complete"][0].attributes["vqd.step_calls"] == 200


def test_who_is_not_sampled_leaves_no_spans(traced: Traced, collector: Collector) -> None:
    unsampled = traced.post({"traceparent": f"00-{TRACE}-{CALLER}-00"}).json()["id"]
    spans_of(collector, traced.post().json()["id"])
    assert TRACE not in {span.trace for span in collector.spans}
    assert unsampled not in {span.attributes.get("vqd.job_id") for span in collector.spans}


def test_probes_leave_no_spans_and_nothing_holds_the_prompt(traced: Traced, collector: Collector) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
        traced.http.get(path)
    spans_of(collector, traced.post(prompt="a secret zebra").json()["id"])
    assert {span.name for span in collector.spans if span.name.startswith("GET")} == {"GET /v1/models"}
    assert traced.post(prompt="xylophone").status_code == 422, "its error says what the model does not know"
    until(lambda: len(collector.named("answer")) == 2)
    told = repr([(span.attributes, span.resource, span.words) for span in collector.spans])
    assert not [word for word in ("zebra", "xylophone") if word in told]


@pytest.mark.parametrize("silent", [False, True])
def test_a_collector_that_is_away_holds_nothing_up(silent: bool, redis_url: str, tmp_path: Path) -> None:
    """Nobody listens, or somebody who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if silent else free_port()
        with Traced(redis_url, tmp_path, f"http://127.0.0.1:{port}", **AT_ONCE) as traced:
            assert traced.post().status_code == 200
            assert traced.stop() < CLOSE_S + 4
