"""``import vqd``, in both its forms: pictures, what they say of themselves, edits, jobs and models."""

import io
from pathlib import Path
from typing import Any

import pytest
from client_support import either_client, either_kind  # noqa: F401  fixtures
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from picture_files import base64, file_of, half_mask, noise
from PIL import Image

import vqd

PROMPT = "a red circle"


def edit_of(worker: TinyWorker, place: int = -1) -> Any:
    return worker.background.call(worker.queue.view(worker.taken[place])).job.edit


def test_a_picture_and_what_made_it(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    made = client.generate(PROMPT, seed=7, guidance_scale=3)
    (picture,) = made.images
    assert (picture.seed, picture.image_index, picture.tokens_sha256) == (7, 0, f"{7:064x}")
    assert picture.pil().convert("RGB").getpixel((0, 0)) == (7, 0, 0)
    assert picture.request["guidance_scale"] == made.answer["parameters"]["guidance_scale"] == 3
    assert (made.warnings, made.id) == ((), worker.taken[0])
    again = client.generate(**picture.request)
    assert again.images[0].bytes == picture.bytes
    assert "bytes" not in repr(made)


def test_several_pictures_are_saved_by_their_names(
    client: Any, gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    made = client.generate(PROMPT, n=3, seed=9, format="webp")
    assert [image.image_index for image in made.images] == [0, 1, 2]
    folder = tmp_path / "new" / "folder"
    paths = made.save(folder)
    assert paths == [folder / f"a-red-circle-9-{i}.webp" for i in range(3)]
    assert [path.read_bytes() for path in paths] == [image.bytes for image in made.images]
    assert made.images[1].save(folder) == folder / "a-red-circle-9-1_2.webp"
    for _ in range(2):
        assert made.images[1].save(tmp_path / "mine.webp") == tmp_path / "mine.webp", "a name of one's own is meant"
    with pytest.raises(vqd.SetupError, match=r"cannot write to /proc/x\.webp: .*GET /jobs/.*/images/1"):
        made.images[1].save("/proc/x.webp")
    with pytest.raises(vqd.SetupError, match=r"cannot write to /proc/x/a-red.*: .*GET /jobs/.*/images/0"):
        made.save("/proc/x")


def test_a_picture_to_begin_with_may_be_given_as_python_has_it(
    client: Any, gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    opened = Image.fromarray(noise(64, 64))
    data = file_of(opened)
    path = tmp_path / "image.png"
    path.write_bytes(data)
    for image in (path, str(path), data, f"data:image/png;base64,{base64(data)}"):
        client.edit(PROMPT, image=image, strength=0.5)
    assert len({edit_of(worker, place).image_sha256 for place in range(4)}) == 1
    assert edit_of(worker).strength == 0.5
    made = client.edit(PROMPT, image=opened, mask=Image.fromarray(half_mask(64)), composite=False)
    edit = edit_of(worker)
    assert (edit.strength, edit.composite, edit.image_sha256) == (1.0, False, made.answer["edit"]["image_sha256"])
    assert edit.mask_sha256
    assert edit.changes


def test_a_picture_that_cannot_be_read_is_named(client: Any, worker: TinyWorker, tmp_path: Path) -> None:
    with pytest.raises(vqd.InvalidRequest, match=r"^image: .*/nothing\.png cannot be read: No such file"):
        client.edit(PROMPT, image=tmp_path / "nothing.png")
    with pytest.raises(vqd.InvalidRequest, match=r"^mask: this picture cannot be read: cannot write mode CMYK as PNG"):
        client.generate(PROMPT, image=b"", mask=Image.new("CMYK", (8, 8)))
    with pytest.raises(vqd.InvalidRequest, match=r"^image: ") as caught:
        client.edit(PROMPT, image=b"no picture")
    assert caught.value.field == "image"
    assert worker.taken == []


def test_errors_have_their_class_and_say_when_to_come_back(client: Any, worker: TinyWorker) -> None:
    with pytest.raises(vqd.InvalidRequest, match=r"n: 9 is out of range \(allowed: .* from 1 to 4\)") as caught:
        client.generate(PROMPT, n=9)
    assert caught.value.field == "n"
    with pytest.raises(vqd.NotFound, match="nope"):
        client.generate(PROMPT, model="nope")
    with pytest.raises(vqd.NotFound, match="no job nothing"):
        client.job("nothing")


def test_jobs_are_listed_over_pages(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    made = [client.generate(PROMPT, seed=seed).id for seed in range(3)]
    assert [job.id for job in client.jobs()] == made[::-1]
    assert [job.id for job in client.jobs(limit=2)] == made[:0:-1]
    assert client.jobs(limit=0) == []
    last = client.jobs()[0]
    assert (last.status, last.over) == (vqd.Status.SUCCEEDED, True)
    assert last.wait().images[0].seed == 2
    (job,) = [job for job in client.jobs() if job.id == made[0]]
    assert job.pictures().images[0].bytes == client.job(made[0]).pictures().images[0].bytes


def test_more_jobs_than_an_answer_holds(client: Any, gateway: RunningGateway, worker: TinyWorker) -> None:
    made = [gateway.start(seed=seed) for seed in range(105)]
    until(lambda: len(worker.ended) == len(made), limit_s=30)
    found = [job.id for job in client.jobs(limit=103)]
    assert len(found) == len({*found}) == 103
    assert {*found} <= {*made}


def test_the_models_are_described(client: Any, worker: TinyWorker) -> None:
    (card,) = client.models()
    assert (card["id"], card["sha256"]) == ("shapes", "ab" * 32)


def test_a_file_is_a_file_of_the_service(client: Any, worker: TinyWorker) -> None:
    (picture,) = client.generate(PROMPT, seed=7, format="jpeg").images
    with Image.open(io.BytesIO(picture.bytes)) as opened:
        assert opened.format == "JPEG"
    assert picture.name == "a-red-circle-7-0.jpeg"
