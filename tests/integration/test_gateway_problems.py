"""Every refusal is an RFC 9457 problem that says what was wrong."""

import gzip
import json
import re
import socket
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.diffusion.samplers import SAMPLERS
from service.gateway.app import create_app
from service.gateway.bodies import with_pictures
from service.gateway.document import document
from service.settings import Settings
from service.telemetry.logs import JsonFormatter

PROMPT = {"prompt": "a red circle"}
JSON = {"Content-Type": "application/json"}


def checked_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= set(body)
    assert body["status"] == status
    assert body["instance"] == response.url.path
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body


@pytest.mark.parametrize(
    ("body", "field", "allowed"),
    [
        ({"guidance_scale": 21}, "guidance_scale", "a number from 0 to 20"),
        ({"guidance_scale": True}, "guidance_scale", "a number from 0 to 20"),
        ({"guidance_scale": "3"}, "guidance_scale", "a number from 0 to 20"),
        ({"steps": 2.5}, "steps", "a whole number from 1 to 100"),
        ({"steps": 10**30}, "steps", "a whole number from 1 to 100"),
        ({"n": 5}, "n", "a whole number from 1 to 4"),
        ({"n": True}, "n", "a whole number from 1 to 4"),
        ({"seed": -1}, "seed", "a whole number from 0 to 9007199254740991"),
        ({"seed": 2**53}, "seed", "a whole number from 0 to 9007199254740991"),
        (
            {"sampler": "ancestral", "tokens_per_step": 4},
            "tokens_per_step",
            "nothing, or another sampler than ancestral",
        ),
        ({"sampler": "euler"}, "sampler", "one of " + ", ".join(SAMPLERS)),
        ({"format": "gif"}, "format", "one of png, jpeg, webp"),
        ({"deadline_s": 0}, "deadline_s", "a number above 0, up to 86400"),
        ({"webhook_url": 5}, "webhook_url", "a URL that begins with https://, of at most 2000 characters"),
        ({"adapt": True}, "adapt", "true or false; true only with deadline_s"),
        ({"adapt": 1, "deadline_s": 9}, "adapt", "true or false; true only with deadline_s"),
        ({"prompt": " "}, "prompt", "text of 1 to 2000 characters without control characters"),
        ({"prompt": "a\u0007b"}, "prompt", "text of 1 to 2000 characters without control characters"),
        ({"prompt": "x" * 2001}, "prompt", "text of 1 to 2000 characters without control characters"),
        ({"prompt": None}, "prompt", "text of 1 to 2000 characters without control characters"),
    ],
)
def test_a_wrong_field(
    gateway: RunningGateway, worker: TinyWorker, body: dict[str, object], field: str, allowed: str
) -> None:
    problem = checked_problem(gateway.ask(**body), 422)
    assert problem["type"] == "urn:vqd:problem:invalid-request"
    assert [(e["field"], e["allowed"]) for e in problem["errors"]] == [(field, allowed)]
    assert field in problem["detail"]
    assert worker.taken == []


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"sampler": "euler"}, "sampler", "must be one of purity"),
        ({"guidance_schedule": "foo"}, "guidance_schedule", "must be one of constant"),
        ({"guidance_schedule": [1, "x", None]}, "guidance_schedule", "Input should be a valid number"),
        ({"image_sha256": "abc"}, "image_sha256", "is not written as it should be"),
        ({"guidence_scale": 3}, "guidence_scale", "there is no such field; did you mean guidance_scale?"),
        ({"xyz": 3}, "xyz", "there is no such field"),
    ],
)
def test_what_is_wrong_is_said_once_and_for_people(
    gateway: RunningGateway, body: dict[str, object], field: str, said: str
) -> None:
    problem = checked_problem(gateway.ask(**body), 422)
    (error,) = problem["errors"]
    assert error["field"] == field
    assert error["message"].startswith(said)
    assert problem["detail"].count(error["allowed"][:60]) == 1


def test_what_a_query_may_say_is_named(gateway: RunningGateway, worker: TinyWorker) -> None:
    job_id = gateway.ask().json()["id"]
    (error,) = checked_problem(gateway.http.get(f"/jobs/{job_id}/events?preview=maybe"), 422)["errors"]
    assert (error["field"], error["allowed"]) == ("preview", "one of false, true, purity")
    (error,) = checked_problem(gateway.http.get("/jobs?limit=0"), 422)["errors"]
    assert (error["field"], error["allowed"]) == ("limit", "a whole number from 1 to 100")


def test_all_wrong_fields_are_named_at_once(gateway: RunningGateway, worker: TinyWorker) -> None:
    problem = checked_problem(gateway.ask(steps=0, colour="red", n=0), 422)
    assert {e["field"] for e in problem["errors"]} == {"steps", "colour", "n"}
    problem = checked_problem(gateway.ask(steps=101, temperature=9, n=9), 422)
    assert {e["field"] for e in problem["errors"]} == {"steps", "temperature", "n"}
    headers = {"Idempotency-Key": "a b"}
    problem = checked_problem(gateway.http.post("/generate", json=PROMPT | {"n": 0}, headers=headers), 422)
    assert {e["field"].lower() for e in problem["errors"]} == {"n", "idempotency-key"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'"prompt"', "body"),
        (b"[" * 3000, "body"),
        (b'{"prompt": "\xff"}', "body"),
        (b'{"prompt": "\\ud800"}', "body"),
        (b'{"prompt": "a\\udc00b"}', "body"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature"),
        (b'{"prompt": "a", "temperature": -Infinity}', "temperature"),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
    ],
)
def test_a_body_that_is_no_request(gateway: RunningGateway, worker: TinyWorker, body: bytes, field: str) -> None:
    problem = checked_problem(gateway.http.post("/generate", content=body, headers=JSON), 422)
    assert [e["field"] for e in problem["errors"]] == [field]


def test_what_the_plan_refuses_names_its_field(gateway: RunningGateway, worker: TinyWorker) -> None:
    problem = checked_problem(gateway.ask(steps=65), 422)  # more evaluations than there are tokens
    assert problem["errors"][0]["field"] == "steps"


def test_content_type(gateway: RunningGateway, worker: TinyWorker) -> None:
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/merge-patch+json"}, {}):
        checked_problem(gateway.http.post("/generate", content=json.dumps(PROMPT), headers=headers), 415)
    accepted = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert gateway.http.post("/generate", content=json.dumps(PROMPT), headers=accepted).status_code == 200


def test_an_encoding_that_is_not_understood(gateway: RunningGateway, worker: TinyWorker) -> None:
    for encoding in ("gzip", "br, gzip"):
        headers = JSON | {"Content-Encoding": encoding}
        response = gateway.http.post("/generate", content=gzip.compress(json.dumps(PROMPT).encode()), headers=headers)
        assert checked_problem(response, 415)["detail"].startswith(f"Content-Encoding is {encoding}")
        assert response.headers["Accept-Encoding"] == "identity"
        assert response.headers["Accept"] == "application/json, multipart/form-data"
    headers = JSON | {"Content-Encoding": "Identity"}
    assert gateway.http.post("/generate", content=json.dumps(PROMPT), headers=headers).status_code == 200


def test_a_body_may_begin_with_a_byte_order_mark(gateway: RunningGateway, worker: TinyWorker) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(PROMPT).encode()
    assert gateway.http.post("/generate", content=body, headers=JSON).status_code == 200


def test_a_key_that_is_given_twice(gateway: RunningGateway, worker: TinyWorker) -> None:
    body = b'{"prompt": "red apple", "prompt": "blue heart", "seed": 1, "seed": 2}'
    problem = checked_problem(gateway.http.post("/generate", content=body, headers=JSON), 422)
    assert [error["field"] for error in problem["errors"]] == ["prompt", "seed"]


WRONG_BODIES = [
    "{" + ",".join(f'"{number}":1' for number in range(6000)) + "}",
    "{" + ",".join(f'"{number:060}":1' for number in range(950)) + "}",
    "{" + ",".join(f'"\\u0001{number}":1' for number in range(4000)) + "}",
    '{"' + "é" * 30_000 + '":1}',
    '{"a":1,' + ",".join('"a":1' for _ in range(9000)) + "}",
    '{"prompt":"a","sampler":"' + "x" * 60_000 + '"}',
    '{"prompt":"a","model":"' + "\U0001f34e" * 200 + '"}',
    "[" * 60_000,
]


def test_an_error_never_grows(settings: Settings) -> None:
    running = RunningGateway(settings.model_copy(update={"max_body_bytes": 65536}))
    worker = TinyWorker(settings)
    try:
        for body in WRONG_BODIES:
            response = running.http.post("/generate", content=body.encode(), headers=JSON)
            assert response.status_code in (404, 422)
            assert len(response.content) <= 4000, body[:20]
    finally:
        worker.close()
        running.close()


@pytest.mark.parametrize("header", ["Accept", "Content-Type", "Content-Encoding", "Prefer", "X-Request-Id"])
def test_an_error_never_grows_with_a_header(gateway: RunningGateway, worker: TinyWorker, header: str) -> None:
    response = gateway.http.post("/generate", content=json.dumps(PROMPT), headers=JSON | {header: "x/y" * 5000})
    assert len(response.content) + sum(len(key) + len(value) for key, value in response.headers.items()) <= 4000


def test_a_long_path_is_not_said_again(gateway: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    response = gateway.http.get("/" + "%00" * 5000)
    assert (response.status_code, len(response.content) <= 4000) == (404, True)
    ours = lambda: [record.getMessage() for record in caplog.records if record.name.startswith("service.")]  # noqa: E731
    until(ours)  # the line is written after the answer
    assert max(map(len, ours())) <= 1000


def test_a_wrong_path_is_listed_once(gateway: RunningGateway) -> None:
    problem = checked_problem(gateway.http.get("/jobs/a:b"), 422)
    assert [error["field"] for error in problem["errors"]] == ["job_id"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body(gateway: RunningGateway, worker: TinyWorker, chunked: bool) -> None:
    body = b" " * 4097
    content = (body[i : i + 1000] for i in range(0, len(body), 1000)) if chunked else body
    problem = checked_problem(gateway.http.post("/generate", content=content, headers=JSON), 413)
    assert problem["type"] == "urn:vqd:problem:payload-too-large"
    largest = json.dumps(PROMPT).encode().ljust(4096)
    assert gateway.http.post("/generate", content=largest, headers=JSON).status_code == 200


def test_a_large_body_does_nothing(gateway: RunningGateway, worker: TinyWorker) -> None:
    """Not even where no body is read."""
    worker.hold.set()
    job_id = gateway.start()
    checked_problem(gateway.http.request("DELETE", f"/jobs/{job_id}", content=b" " * 4097), 413)
    assert gateway.job(job_id)["status"] in ("queued", "running")
    worker.hold.clear()


def test_a_large_body_is_refused_before_it_is_sent(gateway: RunningGateway) -> None:
    """One that is too large whatever pictures are in it."""
    most = with_pictures(gateway.gateway.settings)
    fixed = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head = f"{fixed}Content-Length: {most + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
        client.sendall(head.encode())
        answer = HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
        most_image = gateway.gateway.settings.max_image_bytes
        detail = f"the body may have at most {most} bytes, and a picture in it {most_image}"
        assert json.loads(answer.read())["detail"] == detail


def test_no_worker(gateway: RunningGateway) -> None:
    response = gateway.ask()
    assert checked_problem(response, 503)["type"] == "urn:vqd:problem:unavailable"
    assert int(response.headers["Retry-After"]) > 0


def test_unknown_model(gateway: RunningGateway, worker: TinyWorker) -> None:
    assert "shapes" in checked_problem(gateway.ask(model="nope"), 404)["detail"]
    assert gateway.ask(model="shapes").status_code == 200


def test_a_full_queue(settings: Settings, gateway: RunningGateway, worker: TinyWorker) -> None:
    small = RunningGateway(settings.model_copy(update={"queue_capacity": 1}))
    worker.hold.set()
    try:
        small.start()
        response = small.ask()
        assert checked_problem(response, 503)["type"] == "urn:vqd:problem:queue-full"
        assert int(response.headers["Retry-After"]) > 0
    finally:
        worker.hold.clear()
        small.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nothing", 404, "there is nothing at /nothing; GET /docs shows what there is"),
        ("PUT", "/generate", 405, "/generate takes POST, not PUT"),
        ("GET", "/jobs/unknown", 404, "no job unknown"),
        ("DELETE", "/jobs/unknown", 404, "no job unknown"),
        ("GET", "/jobs/unknown/events", 404, "no job unknown"),
        ("GET", "/jobs/unknown/images/0", 404, "no image 0 of job unknown"),
        ("GET", "/jobs/unknown/images/-1", 422, "index: "),
        ("GET", "/jobs/%7Bvqd%7D%3Aworkers", 422, "job_id: "),
    ],
)
def test_routes_and_methods(gateway: RunningGateway, method: str, path: str, status: int, detail: str) -> None:
    response = gateway.http.request(method, path)
    assert checked_problem(response, status)["detail"].startswith(detail)
    assert ("Allow" in response.headers) == (status == 405)


def test_a_bug_is_a_problem_with_a_request_id(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    running = RunningGateway(settings)
    directory, running.gateway.directory = running.gateway.directory, None  # a bug
    try:
        response = running.http.get("/v1/models", headers={"X-Request-Id": "find-me"})
        problem = checked_problem(response, 500)
        assert problem["request_id"] == "find-me"
        assert "NoneType" not in response.text
        (line,) = [json.loads(line) for line in caplog.text.splitlines() if '"ERROR"' in line]
        assert (line["message"], line["request_id"]) == ("GET /v1/models met a bug", "find-me")
        assert "AttributeError" in line["exception"]
        running.gateway.directory = directory
        assert running.metric('vqd_http_requests_total{method="GET",route="/v1/models",status="500"}') == 1
    finally:
        running.close()


@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("a b", False), ("x" * 129, False), ("", False)])
def test_request_ids(gateway: RunningGateway, given: str, kept: bool) -> None:
    response = gateway.http.get("/healthz", headers={"X-Request-Id": given})
    assert (response.headers["X-Request-Id"] == given) == kept
    assert re.fullmatch(r"[\w-]{6,128}", response.headers["X-Request-Id"])


def test_the_document_describes_requests_and_problems(settings: Settings) -> None:
    described = document(create_app(settings))
    operation = described["paths"]["/generate"]["post"]
    assert operation["requestBody"]["required"]
    assert set(operation["requestBody"]["content"]) == {"application/json"}
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/GenerateRequest"}
    assert body["examples"]["paper"]["value"]["tokens_per_step"] == 4
    schemas = described["components"]["schemas"]
    assert "required" not in schemas["GenerateRequest"], "what is needed depends on what is served"
    assert schemas["GenerateRequest"]["additionalProperties"] is False
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert references <= set(schemas)
    assert "application/problem+json" in operation["responses"]["default"]["content"]
