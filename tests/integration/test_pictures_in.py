"""Pictures to begin with, from the request to the result: a gateway, worker processes, the shipped fake of Triton."""

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from commands import vqd
from fleet import SHAPES, Fleet, serving
from gateway_harness import until
from picture_files import UInt8, base64, file_of, half_mask, noise, pixels_in

from service.diffusion.samplers import SAMPLERS
from service.messages import Status
from service.queue import keys
from service.testing.fake_triton import DIES, decode

SIZE, TOKENS = SHAPES.image_width, SHAPES.tokens
CODES = np.random.default_rng(5).integers(0, SHAPES.codes, TOKENS).astype(np.int32)
PICTURE: UInt8 = decode({"tokens": CODES[None]}, SHAPES)["image"][0]
"""What the fake draws of CODES, and reads as them."""
IMAGE, MASK = file_of(PICTURE), file_of(half_mask(SIZE))
EDIT = {"prompt": "a red circle", "image": base64(IMAGE), "mask": base64(MASK), "seed": 7, "guidance_scale": 1}
KEPT = half_mask(SIZE) == 0


@pytest.fixture(scope="module")
def fleet(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(redis_server, tmp_path_factory.mktemp("fleet"))
    fleet.start_worker()
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def http(fleet: Fleet) -> Iterator[httpx.Client]:
    with serving(fleet) as client:
        yield client


def make(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/generate", json={**EDIT, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def sha256(grid: np.ndarray) -> str:
    return hashlib.sha256(grid.astype("<i4").tobytes()).hexdigest()


def pinned_in_calls(fleet: Fleet) -> list[list[int]]:
    """What the step was told, call by call, of rows that have any."""
    calls = [call.inputs["pinned"] for call in fleet.triton.calls if call.model == "diffusion_step"]
    return [row.tolist() for rows in calls for row in rows if (row >= 0).any()]


def refusal(response: httpx.Response, field: str, status: int = 422) -> str:
    assert response.status_code == status, response.text
    problem = response.json()
    assert [error["field"] for error in problem["errors"]] == [field]
    return str(problem["detail"])


def test_strength_0_gives_the_picture_as_the_model_reads_it(fleet: Fleet, http: httpx.Client) -> None:
    answer = make(http, strength=0, mask=None)
    assert answer["images"][0]["tokens_sha256"] == sha256(CODES)
    assert (answer["evaluations"], answer["committed"]) == (0, 1)
    assert answer["edit"]["image_sha256"] == hashlib.sha256(IMAGE).hexdigest()


def test_a_picture_that_takes_no_evaluation_has_none_to_spare(http: httpx.Client) -> None:
    make(http)  # so that the worker knows what a call takes
    answer = make(http, strength=0, mask=None, deadline_s=60, adapt=True)
    assert answer["images"][0]["tokens_sha256"] == sha256(CODES)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name in ("purity", "uniform", "ancestral")])
def test_what_the_mask_keeps_comes_out_exactly(fleet: Fleet, http: httpx.Client, sampler: str) -> None:
    noisy = noise(SIZE, SIZE)
    response = http.post(
        "/generate",
        json={**EDIT, "image": base64(file_of(noisy)), "sampler": sampler},
        headers={"Accept": "image/png"},
    )
    made = pixels_in(response.content)
    assert (made[KEPT] == noisy[KEPT]).all()
    assert not (made[~KEPT] == noisy[~KEPT]).all()


def test_without_composite_the_kept_tokens_are_drawn(http: httpx.Client) -> None:
    answer = make(http, composite=False)
    assert not answer["edit"]["composite"]
    assert make(http)["edit"]["composite"]
    assert answer["images"][0]["tokens_sha256"] == make(http)["images"][0]["tokens_sha256"]


def test_only_what_is_masked_is_computed(fleet: Fleet, http: httpx.Client) -> None:
    """Half of a picture in half of the evaluations, the network told what is pinned."""
    fleet.triton.calls.clear()
    whole, half, quarter = (
        make(http, mask=m, strength=s) for m, s in ((None, 1), (EDIT["mask"], 1), (EDIT["mask"], 0.5))
    )
    assert [answer["evaluations"] for answer in (whole, half, quarter)] == [4, 2, 1]
    told = pinned_in_calls(fleet)
    marked = np.zeros((8, 8), bool)
    marked[:, 4:] = True
    assert told
    for row in told:
        assert row == np.where(marked.ravel(), -1, CODES).tolist()


def test_what_is_to_stay_is_not_drawn_anew_at_the_end(http: httpx.Client) -> None:
    assert make(http)["parameters"]["final_resample"]
    assert not make(http, strength=0.9)["parameters"]["final_resample"]
    assert not make(http, mask=None)["parameters"]["final_resample"]
    assert make(http, mask=None)["edit"]["strength"] == 0.7


def test_the_same_request_is_the_same_picture_and_another_image_another(http: httpx.Client) -> None:
    first, second = make(http, n=2), make(http, n=2)
    hashes = [image["tokens_sha256"] for image in first["images"]]
    assert hashes == [image["tokens_sha256"] for image in second["images"]]
    assert len(set(hashes)) == 2
    other = make(http, image=base64(file_of(PICTURE[::-1])))
    assert other["images"][0]["tokens_sha256"] != hashes[0]
    assert make(http, seed=8)["images"][0]["tokens_sha256"] != hashes[0]


def test_a_form_is_the_same_request_as_json(http: httpx.Client) -> None:
    fields = {
        "prompt": "a red circle",
        "seed": "7",
        "guidance_scale": "1",
        "strength": "0.5",
        "composite": "true",
        "n": "2",
    }
    files = {"image": ("a.png", IMAGE), "mask": ("b.png", MASK), "label": ("", b"")}
    headers = {"Idempotency-Key": "a-form"}
    form = http.post("/generate", data=fields, files=files, headers=headers)
    assert form.status_code == 200, form.text
    asked = {**EDIT, "strength": 0.5, "composite": True, "n": 2, "image": "data:image/png;base64," + str(EDIT["image"])}
    json = http.post("/generate", json=asked, headers=headers)
    assert json.headers["Idempotent-Replayed"] == "true"
    assert json.json()["images"] == form.json()["images"]


def test_the_request_of_a_picture_makes_it_again_with_its_files(http: httpx.Client) -> None:
    second = make(http, n=2, strength=0.9, pinned=[-1] * 60 + [3] * 4)["images"][1]
    request = second["request"]
    assert {name: request[name] for name in ("strength", "composite", "image_index", "final_resample")} == {
        "strength": 0.9,
        "composite": True,
        "image_index": 1,
        "final_resample": False,
    }
    assert "needs image" in refusal(http.post("/generate", json=request), "image_sha256")
    files = {"image": base64(IMAGE), "mask": base64(MASK)}
    again = http.post("/generate", json=request | files).json()["images"][0]
    assert (again["tokens_sha256"], again["b64_json"]) == (second["tokens_sha256"], second["b64_json"])
    wrong = {**files, "image": base64(file_of(PICTURE[::-1]))}
    assert "another file" in refusal(http.post("/generate", json=request | wrong), "image_sha256")


@pytest.mark.parametrize("fields", [{}, {"strength": 0.6, "composite": False, "n": 1, "image_index": 3}])
def test_an_edit_is_replayed(http: httpx.Client, tmp_path: Path, fields: dict[str, Any]) -> None:
    response = http.post("/generate", json={**EDIT, **fields}, headers={"Accept": "image/png"})
    files = {"made.png": response.content, "image.png": IMAGE, "mask.png": MASK}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    given = ("--image", "image.png", "--mask", "mask.png")
    done = vqd("replay", "made.png", "--url", str(http.base_url), *given, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "made.png: equal\n"), done.stderr


def test_an_explicit_last_look_is_heeded(http: httpx.Client) -> None:
    assert make(http, strength=0.9, final_resample=True)["parameters"]["final_resample"]


def test_an_idempotency_key_is_of_one_picture(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "one-picture"}
    assert http.post("/generate", json=EDIT, headers=headers).status_code == 200
    other = {**EDIT, "image": base64(file_of(PICTURE[::-1]))}
    assert "another request" in refusal(http.post("/generate", json=other, headers=headers), "Idempotency-Key")


def test_codes_alone(fleet: Fleet, http: httpx.Client) -> None:
    fleet.triton.calls.clear()
    pinned = [-1] * TOKENS
    pinned[3], pinned[40] = 17, 0
    answer = make(http, image=None, mask=None, pinned=pinned)
    assert answer["evaluations"] == 4
    assert pinned_in_calls(fleet)[0] == pinned
    every = make(http, image=None, mask=None, pinned=CODES.tolist())
    assert every["images"][0]["tokens_sha256"] == sha256(CODES), "nothing is left to draw"


def test_a_wide_picture_says_what_was_taken_of_it(http: httpx.Client) -> None:
    wide = np.concatenate([PICTURE] * 3, axis=1)
    answer = make(http, image=base64(file_of(wide)), mask=None, strength=0)
    assert answer["images"][0]["tokens_sha256"] == sha256(CODES)
    assert answer["warnings"] == [
        "image: of its 192x64 pixels the 64x64 in the middle were taken: the model's shape",
    ]


def test_the_picture_goes_with_the_end_of_its_job(fleet: Fleet, http: httpx.Client) -> None:
    job_id = make(http)["id"]

    async def fields(queue: Any) -> set[bytes]:
        return {*await queue.redis.hkeys(keys.job(job_id))}

    assert not fleet.ask(fields) & {b"image", b"mask"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("sampler", ["purity", "ancestral"])
def test_a_resumed_job_makes_the_same_picture(fleet: Fleet, http: httpx.Client, sampler: str, number: int) -> None:
    """Another worker goes on from the checkpoint, with the same plan and the same pinned codes."""
    asked = {**EDIT, "sampler": sampler, "steps": 32, "strength": 0.9}
    asked |= {} if sampler == "ancestral" else {"tokens_per_step": 2}
    expected = make(http, **asked)
    fleet.triton.delay_s = 0.05
    try:
        started = http.post("/generate", json=asked, headers={"Prefer": "respond-async"}).json()
        job_id = started["id"]

        async def checkpointed(queue: Any) -> bool:
            return bool(await queue.redis.hexists(keys.job(job_id), "checkpoint"))

        until(lambda: fleet.ask(checkpointed))
        [worker] = [process for process in fleet.workers if process.poll() is None]
        worker.send_signal(number)
        worker.wait(30)
        fleet.triton.delay_s = 0
        fleet.start_worker()
        view = fleet.wait(job_id)
    finally:
        fleet.triton.delay_s = 0
    assert view.result is not None
    assert view.epoch > 1
    assert fleet.tokens(job_id) == [image["tokens_sha256"] for image in expected["images"]]
    assert view.result.evaluations == expected["evaluations"] < 32
    assert not view.result.started_again
    made = pixels_in(http.get(f"/jobs/{job_id}/images/0").content)
    assert (made[KEPT] == PICTURE[KEPT]).all()


def test_a_job_that_lost_its_triton_starts_alone_and_makes_the_same_picture(fleet: Fleet, http: httpx.Client) -> None:
    """It is tried by itself, and its picture read there."""
    expected = make(http)["images"][0]["tokens_sha256"]
    # Not with a health check, whose picture is black.
    fleet.triton.fail_when(lambda call: call.model == "image_encoder" and call.inputs["image"].any(), DIES)
    job_id = http.post("/generate", json=EDIT, headers={"Prefer": "respond-async"}).json()["id"]

    async def blamed(queue: Any) -> bool:
        return bool(await queue.redis.hexists(keys.job(job_id), "blamed"))

    until(lambda: fleet.ask(blamed))
    fleet.triton.rules.clear()
    assert fleet.wait(job_id, limit_s=60).status is Status.SUCCEEDED
    assert fleet.tokens(job_id) == [expected]
    assert "runs alone for a while" in fleet.logs()


def test_neither_logs_nor_errors_hold_the_picture(fleet: Fleet, http: httpx.Client) -> None:
    broken = base64(IMAGE[:-200])
    response = http.post("/generate", json={**EDIT, "image": broken})
    told = refusal(response, "image") + fleet.logs() + (fleet.folder / "gateway.log").read_text()
    for secret in (base64(IMAGE)[100:120], base64(MASK)[60:80], repr(IMAGE[100:120])[2:-1]):
        assert secret not in told
