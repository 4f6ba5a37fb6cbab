"""The unmodified ``openai`` package of npm in a web page that the operator lets in (VQD_CORS_ORIGINS)."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from both_sides import failing
from chromium import Chromium
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    tiny_worker,
)
from npm import installed
from openai_support import NPM_PACKAGE
from playground_support import chromium_of_a_module, needs_chromium  # noqa: F401  one is a fixture
from receiver import Receiver

from service.settings import Settings

ALL_THAT_IT_TELLS = """
import OpenAI from "openai";
const [baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "k", maxRetries: 1, organization: "o", project: "p" });
const image = new File(["a"], "a.png");
const timeout = 9000;
for (const ask of [
    () => client.images.generate({ prompt: "a" }, { timeout }),
    () => client.images.generate({ prompt: "a", stream: true }),
    () => client.images.edit({ prompt: "a", image }),
])
    await ask().catch(() => {});
"""
NOT_ASKED_FOR = {"host", "connection", "accept-encoding", "content-length", "user-agent"}
"""Headers that a browser sends whatever a page says, and for which it asks nobody. Those that begin with sec-, too."""
IN_A_PAGE = """
(async () => {
    const { default: OpenAI } = await import("/node_modules/openai/index.mjs");
    const told = { baseURL: %s, apiKey: "none is needed", organization: "o", project: "p", timeout: 20000 };
    const client = new OpenAI({ ...told, dangerouslyAllowBrowser: true });
    const prompt = "a red circle";
    const image = new File([Uint8Array.from(atob(%s), (letter) => letter.charCodeAt(0))], "a.png");
    %s
})()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is, and an empty page."""
    made = tmp_path_factory.mktemp("browser")
    installed(made, NPM_PACKAGE)
    (made / "index.html").write_text("<!doctype html><title>a page</title>")
    return made


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    """Of a page that serves the package, and is not ours."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(name="gateway")
def open_to_the_page(settings: Settings, origin: str) -> Iterator[RunningGateway]:
    running = RunningGateway(settings.model_copy(update={"cors_origins": origin}))
    yield running
    running.close()


def test_a_preflight_allows_each_header_that_the_package_sends(
    gateway: RunningGateway, folder: Path, origin: str
) -> None:
    script = folder / "headers.mjs"
    script.write_text(ALL_THAT_IT_TELLS)
    node = shutil.which("node") or pytest.skip("there is no node")
    with Receiver(lambda _: (500, {"retry-after-ms": "1"})) as receiver:
        subprocess.run([node, str(script), f"http://127.0.0.1:{receiver.port}/v1"], check=True, timeout=60)
    told = {name.lower() for got in receiver.got for name in got.headers}
    assert {"x-stainless-lang", "x-stainless-timeout", "openai-organization", "authorization"} <= told
    asked = sorted(name for name in told - NOT_ASKED_FOR if not name.startswith("sec-"))
    for names in (asked, ["idempotency-key", "x-api-key", "prefer", "x-request-id"]):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ",".join(names),
        }
        answer = gateway.http.options("/v1/images/generations", headers=headers)
        assert (answer.status_code, answer.text) == (200, "OK")
        allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
        assert set(names) <= allowed
    headers["Access-Control-Request-Headers"] = "x-anything-else"
    assert gateway.http.options("/v1/images/generations", headers=headers).status_code == 400


@needs_chromium
def test_it_works_in_a_page(chromium: Chromium, gateway: RunningGateway, worker: TinyWorker, origin: str) -> None:
    """A picture, an edit, a stream, and an error that says of itself that another try is pointless."""
    picture = gateway.ask().json()["images"][0]["b64_json"]

    def run(page: Any, code: str) -> Any:
        return page.run(IN_A_PAGE % (json.dumps(f"{gateway.url}/v1"), json.dumps(picture), code))

    with chromium.page(f"{origin}/index.html") as page:
        sizes = run(
            page,
            """const made = await client.images.generate({ prompt, size: "128x128" });
               const edited = await client.images.edit({ prompt, image, size: "256x256" });
               return [made.size, edited.size];""",
        )
        assert sizes == ["128x128", "256x256"]
        kinds = run(
            page,
            """const kinds = [];
               for await (const event of await client.images.generate({ prompt, stream: true })) kinds.push(event.type);
               return kinds;""",
        )
        assert kinds == ["image_generation.completed"]
        worker.failure, before = failing("out of colours"), len(worker.taken)
        error = run(
            page,
            """return await client.images.generate({ prompt }).catch(
                   (error) => [error.constructor.name, error.code, !!error.requestID]);""",
        )
        assert error == ["InternalServerError", "inference-failed", True]
        assert len(worker.taken) == before + 1
