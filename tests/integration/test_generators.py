"""Clients that generators make of the served OpenAPI document work."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from npm import installed

NPM = ("openapi-typescript@7.13.0", "typescript@5.9.3")
"""The versions that are tested; that of openapi-python-client stands in constraints.txt."""
PICTURES = '{"content_type_overrides": {"image/png": "application/octet-stream"}}'
USAGE = """
import type { components, operations } from "./vqd";
type Request = components["schemas"]["GenerateRequest"];
type Answer = operations["generate"]["responses"][200]["content"]["application/json"];
type Problem = operations["generate"]["responses"]["default"]["content"]["application/problem+json"];

export const least: Request = { prompt: "a red circle" };
export const more: Request = { prompt: "a red circle", n: 2, seed: null, sampler: "ancestral", priority: "batch" };
// @ts-expect-error a prompt is needed
export const without: Request = { n: 2 };
// @ts-expect-error there is no such sampler
export const wrong: Request = { prompt: "a red circle", sampler: "euler" };
// @ts-expect-error there is no such field
export const unknown: Request = { prompt: "a red circle", colour: "red" };
export const headers: operations["generate"]["parameters"]["header"] = { Prefer: "wait=3", "Idempotency-Key": "a" };

export async function generate(url: string, body: Request): Promise<string> {
    const response = await fetch(`${url}/generate`, { method: "POST", body: JSON.stringify(body) });
    if (response.ok) {
        const answer: Answer = await response.json();
        const z: number | undefined = answer.parameters.tokens_per_step;
        const why: string | undefined = answer.error;
        // @ts-expect-error what may be absent has to be asked for
        const seconds: number = answer.timings.total_s;
        return `${z} ${why} ${seconds} ${answer.images[0]?.b64_json?.length}`;
    }
    const problem: Problem = await response.json();
    const wrong: string[] = problem.errors?.map((error) => `${error.field}: ${error.message} ${error.allowed}`) ?? [];
    return `${problem.type} ${problem.job} ${wrong}`;
}
"""
"""What people write, and, where an error is expected, must not be able to write."""


def saved_document(gateway: RunningGateway, folder: Path) -> Path:
    path = folder / "openapi.json"
    path.write_bytes(gateway.http.get("/openapi.json").raise_for_status().content)
    return path


def run(*command: object, folder: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Generated:
    """The package that openapi-python-client made, with a client of ``gateway``."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.client = importlib.import_module("vqd_client").Client(gateway.url, raise_on_unexpected_status=True)
        self.models = importlib.import_module("vqd_client.models")
        self.unset = importlib.import_module("vqd_client.types").UNSET

    def call(self, operation: str, *place: object, **given: object) -> Any:
        """``operation`` is tag.name; returns what the answer was parsed to."""
        return importlib.import_module(f"vqd_client.api.{operation}").sync(*place, client=self.client, **given)

    def generate(self, prefer: str = "wait=20", **fields: object) -> Any:
        body = self.models.GenerateRequest(prompt="a red circle", **fields)
        return self.call("pictures.generate", body=body, prefer=prefer)


@pytest.fixture
def generated(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Generated]:
    document = saved_document(gateway, tmp_path)
    (tmp_path / "config.json").write_text(PICTURES)
    command = (sys.executable, "-m", "openapi_python_client", "generate", "--path", document)
    said = run(*command, "--config", "config.json", "--meta", "none", "--output-path", "vqd_client", folder=tmp_path)
    assert "WARNING" not in said  # of a part that it left out
    monkeypatch.syspath_prepend(tmp_path)
    made = Generated(gateway)
    with made.client:
        yield made
    for name in [name for name in sys.modules if name.split(".")[0] == "vqd_client"]:
        del sys.modules[name]


def test_a_python_client(generated: Generated, worker: TinyWorker) -> None:
    unset = generated.unset
    done = generated.generate(seed=7, sampler=generated.models.GenerateRequestSamplerName.ANCESTRAL)
    assert (done.status.value, done.parameters.seed, done.parameters.tokens_per_step) == ("succeeded", 7, unset)
    assert (done.error, done.error_type, done.images[0].url) == (unset, unset, unset)
    assert done.timings.total_s > 0
    assert generated.call("jobs.read_image", done.id, 0).payload.read().startswith(b"\x89PNG")
    assert "event: succeeded" in str(generated.call("jobs.read_events", done.id))
    assert generated.call("models.list_models").data[0].ranges["n"].maximum == 4
    assert generated.call("service.check_readiness").status == "ready"

    worker.hold.set()
    waiting = generated.generate("respond-async")
    assert (waiting.finished_ms, waiting.timings, waiting.images) == (unset, unset, [])
    generated.call("jobs.cancel_job", waiting.id)
    worker.hold.clear()
    until(lambda: generated.call("jobs.read_job", waiting.id).status.value == "cancelled")


def test_a_python_client_meets_problems(generated: Generated, worker: TinyWorker) -> None:
    refused = generated.generate(n=9)
    assert isinstance(refused, generated.models.Problem)
    assert [(e.field, e.allowed) for e in refused.errors] == [("n", "a whole number from 1 to 4")]
    assert generated.call("jobs.read_job", "unknown").errors is generated.unset
    worker.failure = failing("out of colours")
    problem = generated.generate()
    assert (problem.status, problem.type_) == (500, "urn:vqd:problem:inference-failed")
    failed = generated.call("jobs.read_job", problem.job)
    assert (failed.status.value, failed.error, failed.error_type) == ("failed", "out of colours", problem.type_)


def test_a_typescript_client(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    commands = installed(tmp_path, *NPM)
    document = saved_document(gateway, tmp_path)
    run(commands / "openapi-typescript", document, "-o", "vqd.d.ts", folder=tmp_path)
    (tmp_path / "usage.ts").write_text(USAGE)
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler")
    run(commands / "tsc", *options, "usage.ts", folder=tmp_path)
