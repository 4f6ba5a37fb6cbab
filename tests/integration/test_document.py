"""The OpenAPI document is true: it says what is served, and every answer is as it promises."""

import re
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, serving
from fuzz import WEBHOOKS, fuzz
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
)

from service.condition import Condition
from service.diffusion.samplers import SAMPLERS
from service.gateway.app import create_app
from service.gateway.document import document as api_document
from service.gateway.document import with_served
from service.gateway.openai.errors import speaks
from service.local.redis import RedisServer
from service.serving import Range
from service.settings import Settings

OPERATIONS = {
    "generate",
    "list_jobs",
    "read_webhook_secret",
    "read_job",
    "cancel_job",
    "read_events",
    "read_image",
    "read_archive",
    "create_image",
    "edit_image",
    "read_scaled_image",
    "list_models",
    "read_model",
    "read_status",
    "check_health",
    "check_readiness",
    "read_metrics",
}


def document(gateway: RunningGateway) -> dict[str, Any]:
    answer: dict[str, Any] = gateway.http.get("/openapi.json").raise_for_status().json()
    return answer


def bounds(gateway: RunningGateway, field: str) -> tuple[float | None, float | None]:
    number = document(gateway)["components"]["schemas"]["GenerateRequest"]["properties"][field]["anyOf"][0]
    return number.get("minimum"), number.get("maximum")


def test_a_fuzzer_finds_nothing(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path / "fleet", lease_ms=60_000, call_target_ms=50, **WEBHOOKS)
    try:
        fleet.start_worker()
        with serving(fleet) as client:
            done = fuzz(str(client.base_url), tmp_path, 1, "--max-examples", "10")
            metrics = client.get("/metrics").text
    finally:
        fleet.close()
    assert done.returncode == 0, done.stdout + done.stderr
    (cases,) = re.findall(r"(\d+) generated, \1 passed", done.stdout)
    assert int(cases) > 300
    # It got to the end of the way, and not only to refusals.
    assert set(re.findall(r'requests_total{method="POST",route="/generate",status="(\d+)"}', metrics)) >= {"200", "422"}
    assert re.search(r'route="/jobs/{job_id}/images/{index}",status="200"', metrics)


def test_it_has_the_ranges_of_what_is_served(gateway: RunningGateway, settings: Settings, worker: TinyWorker) -> None:
    gateway.gateway.directory.max_age_s = 0
    assert bounds(gateway, "guidance_scale") == (0, 20)
    assert bounds(gateway, "n") == (1, 4)
    strange = dict.fromkeys(("prompt", "of a later version"), Range(minimum=0, maximum=1))
    wide = {**MODEL.ranges, **strange, "guidance_scale": Range(minimum=-1, maximum=9)}
    other = TinyWorker(settings, MODEL.model_copy(update={"name": "other", "ranges": wide}), "other")
    try:
        assert bounds(gateway, "guidance_scale") == (-1, 20)  # no model refuses more than the document
    finally:
        worker.background.call(worker.queue.unregister("other"))
        other.close()
    assert bounds(gateway, "guidance_scale") == (0, 20)


def test_it_names_the_samplers_of_what_is_served(gateway: RunningGateway, worker: TinyWorker) -> None:
    named = document(gateway)["components"]["schemas"]["GenerateRequest"]["properties"]["sampler"]["anyOf"][0]
    assert named["enum"] == [*MODEL.samplers] != [*SAMPLERS]


def test_it_forgets_the_ranges_of_what_is_served_no_more(gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.gateway.directory.max_age_s = 0
    assert bounds(gateway, "guidance_scale") == (0, 20)
    worker.background.call(worker.queue.unregister(worker.name))
    assert bounds(gateway, "guidance_scale") == (None, None)


def test_without_redis_it_is_less_exact(settings: Settings, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        running = RunningGateway(settings.model_copy(update={"redis_url": redis.url}))
        try:
            redis.stop()
            assert bounds(running, "guidance_scale") == (None, None)
            assert bounds(running, "steps") == (1, 2**31 - 1)
        finally:
            running.close()


def test_its_names_read_well(gateway: RunningGateway) -> None:
    paths = document(gateway)["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == OPERATIONS
    assert all(operation["tags"] for operation in operations)
    headers = {p["name"]: p for operation in operations for p in operation.get("parameters", []) if p["in"] == "header"}
    assert set(headers) == {"Idempotency-Key", "Prefer", "Last-Event-ID", "If-None-Match"}
    assert headers["Idempotency-Key"]["schema"]["pattern"] == "^[!-~]{1,255}$"
    assert not any(header["required"] or "anyOf" in header["schema"] for header in headers.values())


def test_what_is_needed_and_taken_is_what_the_served_models_draw_from(
    gateway: RunningGateway, worker: TinyWorker
) -> None:
    request = document(gateway)["components"]["schemas"]["GenerateRequest"]
    assert request["required"] == ["prompt"]
    assert "label" not in request["properties"]
    assert request["properties"]["sampler"]["anyOf"][0]["enum"] == list(MODEL.samplers)
    assert "null" not in str(request["properties"]["prompt"])


@pytest.mark.parametrize(("condition", "needed"), [("label", ["label"]), ("none", None)])
def test_of_models_of_other_kinds(condition: str, needed: list[str] | None) -> None:
    """As the served document says it: a class model's label, and neither for one that draws from nothing."""
    changes = {"condition": condition, "classes": 3, "guidance": condition == "label"}
    model = MODEL.model_copy(update={**changes, "condition": Condition(condition)})
    whole = with_served(api_document(create_app(Settings())), [model])
    request = whole["components"]["schemas"]["GenerateRequest"]
    assert request.get("required") == needed
    assert "prompt" not in request["properties"]
    assert ("guidance_scale" in request["properties"]) == (condition == "label")


def test_its_types_of_content(gateway: RunningGateway) -> None:
    paths = document(gateway)["paths"]

    def content(path: str, status: str, method: str = "get") -> set[str]:
        return set(paths[path][method]["responses"][status]["content"])

    pictures = {"image/png", "image/jpeg", "image/webp"}
    assert content("/generate", "200", "post") == {"application/json", *pictures}
    assert content("/generate", "202", "post") == {"application/json"}
    assert content("/jobs/{job_id}/images/{index}", "200") == pictures
    assert content("/jobs/{job_id}/events", "200") == {"text/event-stream"}
    assert content("/metrics", "200") == {"text/plain"}
    assert content("/v1/images/generations", "200", "post") == {"application/json", "text/event-stream"}
    errors = {path: content(path, "default", method) for path, methods in paths.items() for method in methods}
    theirs = {path for path in paths if speaks({"type": "http", "path": path})}
    assert {path for path, types in errors.items() if types == {"application/json"}} == theirs
    assert {path for path, types in errors.items() if types == {"application/problem+json"}} == paths.keys() - theirs


@pytest.mark.parametrize("schema", ["JobAnswer", "ImageAnswer", "UsedParameters", "Problem", "FieldError"])
def test_what_may_be_absent_is_never_null(gateway: RunningGateway, schema: str) -> None:
    described = document(gateway)["components"]["schemas"][schema]
    absent = {name: field for name, field in described["properties"].items() if name not in described["required"]}
    assert absent
    assert not [name for name, field in absent.items() if "null" in str(field) or "default" in field]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/generate", "POST"),
        ("/jobs/a", "DELETE, GET, HEAD"),
        ("/jobs/a/events", "GET, HEAD"),
        ("/v1/models", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
def test_options_names_every_method_of_a_path(gateway: RunningGateway, path: str, methods: str) -> None:
    for method in ("OPTIONS", "PATCH"):
        assert gateway.http.request(method, path).headers["Allow"] == methods
