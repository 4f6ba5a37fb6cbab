"""The Images API, asked by the unmodified ``openai`` package of npm."""

import json
import shutil
import subprocess
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
from key_support import Keyring
from npm import installed
from openai_support import PROMPT, opened

from service.settings import Settings

PACKAGE = "openai@7.57.0"
"""The version that is tested; that of PyPI stands in constraints.txt."""
SCRIPT = """
import OpenAI from "openai";
const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: apiKey === "none is needed" ? 1 : 0 });
const prompt = "a red circle";

async function error(ask) {
    try { await ask(); } catch (e) {
        return { name: e.constructor.name, status: e.status, code: e.code, param: e.param, id: !!e.requestID };
    }
}

const answers = {
    pictures: async () =>
        await client.images.generate({ prompt, n: 2, size: "128x128", output_format: "webp", seed: 7 }),
    address: async () => await client.images.generate({ prompt, response_format: "url" }),
    stream: async () => {
        const events = [];
        for await (const event of await client.images.generate({ prompt, stream: true, partial_images: 1 }))
            events.push(event);
        return events;
    },
    models: async () => [(await client.models.list()).data, await client.models.retrieve("shapes")],
    errors: async () => [
        await error(() => client.images.generate({ prompt, n: 9 })),
        await error(() => client.models.retrieve("nothing")),
    ],
    failure: async () => await error(() => client.images.generate({ prompt })),
};
console.log(JSON.stringify(await answers[process.argv[4]]()));
"""


class Node:
    """The package, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        installed(folder, PACKAGE)
        self.node = shutil.which("node") or pytest.skip("there is no node")
        self.script = folder / "ask.mjs"
        self.script.write_text(SCRIPT)

    def ask(self, gateway: RunningGateway, what: str, key: str = "none is needed") -> Any:
        """What one of ``answers`` returns."""
        command = [self.node, str(self.script), f"{gateway.url}/v1", key, what]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


def test_pictures(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    answer = node.ask(gateway, "pictures")
    pictures = [opened(one["b64_json"]) for one in answer["data"]]
    assert [(picture.size, picture.format) for picture in pictures] == [((128, 128), "WEBP")] * 2
    assert [one["seed"] for one in answer["data"]] == [7, 7]
    assert answer["usage"]["output_tokens"] == 2 * worker.model.tokens
    (placed,) = node.ask(gateway, "address")["data"]
    assert opened(gateway.http.get(placed["url"]).content).format == "PNG"


def test_a_stream(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    (event,) = node.ask(gateway, "stream")
    assert (event["type"], event["size"]) == ("image_generation.completed", "64x64")
    assert opened(event["b64_json"]).format == "PNG"


def test_models(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    (listed,), model = node.ask(gateway, "models")
    assert (model["id"], model["owned_by"]) == ("shapes", "vqd")
    assert model.items() >= listed.items()


def test_errors(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    assert node.ask(gateway, "errors") == [
        {"name": "UnprocessableEntityError", "status": 422, "code": "invalid-request", "param": "n", "id": True},
        {"name": "NotFoundError", "status": 404, "code": "not-found", "param": None, "id": True},
    ]
    worker.failure = failing("out of colours")
    failure = node.ask(gateway, "failure")
    assert (failure["name"], failure["code"]) == ("InternalServerError", "inference-failed")
    assert len(worker.taken) == 1


def test_keys(node: Node, settings: Settings) -> None:
    running, ring = RunningGateway(settings.model_copy(update={"key_jobs": 1})), Keyring(settings)
    worker = TinyWorker(settings)
    try:
        minted = ring.make("generate")
        worker.hold.set()
        headers = {"Authorization": f"Bearer {minted.token}", "Prefer": "respond-async"}
        until(lambda: running.http.post("/generate", json={"prompt": PROMPT}, headers=headers).status_code == 202)
        for key, name in (
            ("wrong", "AuthenticationError"),
            (ring.make("read").token, "PermissionDeniedError"),
            (minted.token, "RateLimitError"),
        ):
            assert node.ask(running, "failure", key)["name"] == name
        worker.hold.clear()
    finally:
        worker.close()
        ring.close()
        running.close()
