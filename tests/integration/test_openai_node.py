"""The Images API, asked by the unmodified ``openai`` package of npm."""

import json
import shutil
import subprocess
import threading
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
from openai_support import NPM_PACKAGE, PROMPT, opened
from picture_files import file_of, half_mask, noise

from service.settings import Settings
from service.sockets import free_port

SCRIPT = """
import fs from "node:fs";
import OpenAI from "openai";
const [baseURL, apiKey, what, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: apiKey === "none is needed" ? 1 : 0 });
const file = (name) => fs.createReadStream(`${folder}/${name}.png`);
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
    timeout: async () => await error(() => client.images.generate({ prompt }, { timeout: 300, maxRetries: 0 })),
    edit: async () => await client.images.edit({ prompt, image: file("image"), mask: file("mask"), seed: 7 }),
    edits: async () => await error(() => client.images.edit({ prompt, image: [file("image"), file("image")] })),
};
console.log(JSON.stringify(await answers[what]()));
"""


class Node:
    """The package, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        installed(folder, NPM_PACKAGE)
        self.node = shutil.which("node") or pytest.skip("there is no node")
        self.script = folder / "ask.mjs"
        self.script.write_text(SCRIPT)
        (folder / "image.png").write_bytes(file_of(noise(64, 64)))
        (folder / "mask.png").write_bytes(file_of(half_mask(64)))

    def ask(self, gateway: RunningGateway | str, what: str, key: str = "none is needed") -> Any:
        """What one of ``answers`` returns; ``gateway``: or its address."""
        url = gateway if isinstance(gateway, str) else gateway.url
        command = [self.node, str(self.script), f"{url}/v1", key, what, str(self.script.parent)]
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


def test_an_edit_with_a_mask(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    answer = node.ask(gateway, "edit")
    (picture,) = answer["data"]
    assert opened(picture["b64_json"]).format == "PNG"
    edit = gateway.job(answer["id"])["edit"]
    assert (edit["composite"], edit["strength"], len(edit["mask_sha256"])) == (True, 1, 64)
    refused = node.ask(gateway, "edits")
    assert (refused["name"], refused["param"]) == ("UnprocessableEntityError", "image")


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


def test_a_conflict(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    """Somebody cancels the job meanwhile."""
    worker.hold.set()
    cancelling = threading.Thread(target=lambda: gateway.http.delete(f"/jobs/{until(lambda: worker.taken)[0]}"))
    cancelling.start()
    assert node.ask(gateway, "failure")["name"] == "ConflictError"
    cancelling.join()


def test_no_answer(node: Node, gateway: RunningGateway, worker: TinyWorker) -> None:
    """In the time that the client gives, and from nobody at all."""
    worker.hold.set()
    assert node.ask(gateway, "timeout")["name"] == "APIConnectionTimeoutError"
    (job_id,) = until(lambda: worker.taken)
    assert until(lambda: worker.ended.get(job_id)) == "cancelled"
    assert node.ask(f"http://127.0.0.1:{free_port()}", "failure")["name"] == "APIConnectionError"


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
