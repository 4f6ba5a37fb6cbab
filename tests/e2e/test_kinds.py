"""One `vqd up` that serves a class model and one without condition, both converted from official layouts."""

import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from commands import vqd
from integration.gateway_harness import until
from PIL import Image
from running import Up
from unit.official_checkpoint import CLASSES, NOTHING, Spec, make_checkpoint

CLASS, PLAIN = "animals", "textures"
NAMES = ["cat", "dog", "owl", "fox"]


def convert(spec: Spec, name: str, folder: Path, *options: str | Path) -> Path:
    torch.save(make_checkpoint(spec), folder / f"{name}.pth")
    to = folder / name
    given = ["--to", to, "--name", name, "--heads", "2", "--grid", str(spec.grid), *options]
    converted = vqd("convert", folder / f"{name}.pth", *map(str, given), cwd=folder)
    assert converted.returncode == 0, converted.stderr
    return to


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "labels.json").write_text('["cat", "dog", "owl", "fox"]')
    classes = convert(replace(CLASSES, codes=11), CLASS, folder, "--labels", folder / "labels.json", "--classes", "4")
    plain = convert(NOTHING, PLAIN, folder)
    with Up(folder / "up", "--model", classes, "--model", plain) as up:
        yield up


@pytest.fixture(scope="module")
def client(running: Up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url(), timeout=60) as client:
        yield client


def hashes(client: httpx.Client, **fields: object) -> list[str]:
    answer = client.post("/generate", json=fields)
    assert answer.status_code == 200, answer.text
    return [image["tokens_sha256"] for image in answer.json()["images"]]


def refusal(client: httpx.Client, **fields: object) -> dict[str, str]:
    answer = client.post("/generate", json=fields)
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


def test_what_is_served(client: httpx.Client) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert {name: (card["condition"], card["guidance"]) for name, card in cards.items()} == {
        CLASS: ("label", True),
        PLAIN: ("none", False),
    }
    assert (cards[CLASS]["classes"], cards[CLASS]["labels"]) == (4, NAMES)
    assert "label" in cards[CLASS]["fields"]
    assert not {"prompt", "label", "guidance_scale"} & {*cards[PLAIN]["fields"]}
    assert "guidance_scale" not in cards[PLAIN]["ranges"]


def test_a_class_by_number_and_by_name(client: httpx.Client) -> None:
    by_number = hashes(client, model=CLASS, label=2, seed=7, guidance_scale=3)
    assert by_number == hashes(client, model=CLASS, label="owl", seed=7, guidance_scale=3)
    assert by_number != hashes(client, model=CLASS, label="cat", seed=7, guidance_scale=3)
    assert by_number != hashes(client, model=CLASS, label=2, seed=7, guidance_scale=1)


def test_a_picture_of_nothing_in_particular(client: httpx.Client) -> None:
    answer = client.post("/generate", json={"model": PLAIN, "seed": 3}, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(answer.content)).size == (8, 8)
    assert len({*hashes(client, model=PLAIN, seed=3, n=3)}) == 3


@pytest.mark.parametrize("sampler", ["maskgit", "halton", "md4", "ancestral"])
def test_every_sampler_serves_every_kind(client: httpx.Client, sampler: str) -> None:
    for model, condition in ((CLASS, {"label": 1}), (PLAIN, {})):
        assert hashes(client, model=model, sampler=sampler, steps=4, seed=1, **condition)


def test_the_wrong_condition_is_named_with_the_right_one(client: httpx.Client) -> None:
    wrong = refusal(client, model=CLASS, prompt="an owl")
    assert wrong == {
        "prompt": f"{CLASS} draws from a label",
        "label": f"is missing: {CLASS} draws from a label",
    }
    assert refusal(client, model=PLAIN, label=1) == {"label": f"{PLAIN} draws from nothing"}
    assert "no null" in refusal(client, model=PLAIN, guidance_scale=2)["guidance_scale"]
    assert refusal(client, model=CLASS, label=4) == {"label": f"{CLASS} has no class 4"}
    assert refusal(client, model=CLASS, label="unicorn") == {"label": f"{CLASS} has no class 'unicorn'"}
    assert client.post("/generate", json={"label": 1}).status_code == 404, "several models, and none is named"


def test_requests_for_either_batch_among_themselves(client: httpx.Client) -> None:
    """In a crowd of both, each picture is the one that it is alone."""
    wanted = [(CLASS, {"label": i % 4}, i) for i in range(8)] + [(PLAIN, {}, i) for i in range(8)]
    alone = [hashes(client, model=model, seed=seed, **condition) for model, condition, seed in wanted]

    def ask(one: tuple[str, dict[str, int], int]) -> list[str]:
        return hashes(client, model=one[0], seed=one[2], **one[1])

    with ThreadPoolExecutor(len(wanted)) as pool:
        assert list(pool.map(ask, wanted)) == alone


def test_a_killed_worker_is_felt_by_its_own_model_alone(client: httpx.Client, running: Up) -> None:
    pid = worker_of(CLASS)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    while time.monotonic() - began < 2:
        assert hashes(client, model=PLAIN, seed=5)
    until(lambda: client.post("/generate", json={"model": CLASS, "label": 1}).status_code == 200, 60)
    assert worker_of(CLASS) != pid


def worker_of(model: str) -> int:
    """The worker process that has a repository of this name."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = any(v.startswith(b"VQD_REPOSITORY=") and v.endswith(f"/{model}".encode()) for v in environment)
        if ours and b"worker" in words and b"service.cli" in words:
            return int(path.name)
    raise AssertionError(f"no worker of {model}")
