"""``vqd replay``: files that the service has made, made again, against a real gateway and a tiny worker."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import vqd
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import ExifTags, Image, PngImagePlugin

from service.client.saving import generate
from service.errors import SetupError
from service.messages import ImageFormat
from service.provenance.origin import Origin, saved_with
from service.replay import Given
from service.sockets import free_port

FILES = {"image": b"pixels", "mask": b"mask"}


def run(gateway: RunningGateway, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return vqd("replay", *map(str, arguments), "--url", gateway.url, cwd=folder, PYTHONIOENCODING="utf-8")


def made(gateway: RunningGateway, folder: Path, **fields: Any) -> list[Path]:
    return [saved.path for saved in generate(gateway.url, {"prompt": "Äpfel 🍎"} | fields, folder).images]


def rewritten(path: Path, **changes: Any) -> Path:
    """The PNG with another story in it."""
    origin = Origin.read(path).model_copy(update=changes)
    with Image.open(path) as image:
        image.save(path, **saved_with(origin, ImageFormat.PNG))
    return path


def test_what_is_made_again_is_equal(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    paths = made(gateway, tmp_path, seed=7, n=3)
    for image_format in ("jpeg", "webp"):
        paths += made(gateway, tmp_path, seed=2**53 - 1, image_index=5, format=image_format)
    done = run(gateway, tmp_path, *paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{path}: equal" for path in paths]
    assert [path.name for path in paths][2:4] == ["äpfel-7-2.png", "äpfel-9007199254740991-5.jpeg"]


def test_what_differs_is_said_with_what_made_it(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    same, other = made(gateway, tmp_path, seed=7, n=2)
    changes = {"tokens_sha256": "f" * 64, "model_sha256": "12" * 32, "dtype": "bf16", "version": "0.0.1"}
    rewritten(other, **changes)
    done = run(gateway, tmp_path, other.name, same.name)
    assert done.returncode == 1
    facts = [f"model_sha256 {MODEL.sha256[:16]} in place of {'12' * 8}", "dtype fp32 in place of bf16"]
    differs, equal = done.stdout.splitlines()
    assert differs.startswith(f"{other.name}: differs: tokens {0:016x} in place of {'f' * 16}; {facts[0]}; version ")
    assert differs.endswith(facts[1])
    assert equal == f"{same.name}: equal"
    assert done.stderr.splitlines() == [
        f"vqd: note: {other.name}: {fact}: it may come out differently" for fact in facts
    ]


def test_what_is_no_file_of_ours_is_named_and_the_others_go_on(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    (silent,) = made(gateway, tmp_path, seed=7, metadata=False)
    (good,) = made(gateway, tmp_path, seed=8)
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (8, 8)).save(tmp_path / "foreign.jpeg")
    done = run(gateway, tmp_path, silent.name, "text.png", "foreign.jpeg", "nothing.png", good.name)
    assert done.returncode == 1
    assert done.stdout == f"{good.name}: equal\n"
    nothing = "it does not say what made it: it is no file of vqd's, or one without metadata"
    lines = done.stderr.splitlines()
    assert [lines[0], lines[2]] == [f"vqd: {silent.name}: {nothing}", f"vqd: foreign.jpeg: {nothing}"]
    assert lines[1].startswith("vqd: text.png: this is no picture that can be read: cannot identify image file")
    assert lines[3] == "vqd: nothing.png: this is no picture that can be read: No such file or directory"


def test_a_model_that_is_not_served_is_named(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    (path,) = made(gateway, tmp_path, seed=7)
    rewritten(path, request=Origin.read(path).request | {"model": "another"})
    done = run(gateway, tmp_path, path.name)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"vqd: {path.name}: " in done.stderr
    assert "another" in done.stderr


def test_a_file_has_nothing_sent_that_none_of_ours_asks_for(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    """A file is somebody's word: not the files of who replays it, nor an address that the service is to call."""
    paths = made(gateway, tmp_path, seed=7, n=4)
    odd = {"image": str(paths[0]), "webhook_url": "https://example.com", "timeout_s": 1, "self": 1}
    for path, field in zip(paths, odd, strict=True):
        rewritten(path, request=Origin.read(path).request | {field: odd[field]})
    done = run(gateway, tmp_path, *(path.name for path in paths))
    assert (done.returncode, done.stdout, len(worker.taken)) == (1, "", 1)
    assert done.stderr.splitlines() == [
        f"vqd: {path.name}: it asks for {field}, which no file of vqd's does"
        for path, field in zip(paths, odd, strict=True)
    ]


def test_a_damaged_story_is_said_in_our_words_only(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "vqd"
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.jpeg", exif=exif.tobytes()[:-6])
    with pytest.raises(SetupError, match="it does not say what made it"):  # a warning would be an error here
        Origin.read(tmp_path / "odd.jpeg")


def test_a_story_of_another_kind_is_said_plainly(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("vqd", "[]")
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.png", pnginfo=chunks)
    with pytest.raises(SetupError, match=r"as this version does not know it: Input should be an object$"):
        Origin.read(tmp_path / "odd.png")


def test_without_a_service_there_is_one_line(tmp_path: Path) -> None:
    done = vqd("replay", "a.png", "b.png", "--url", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "vqd up" in done.stderr


def test_what_a_picture_was_made_from_is_sent_again(tmp_path: Path) -> None:
    """It is not in the file; its hash is, so that another one is not taken for it."""
    original, mask = tmp_path / "original.png", tmp_path / "mask.png"
    original.write_bytes(FILES["image"])
    mask.write_bytes(FILES["mask"])
    told = {"version": "1", "model_sha256": "a", "tokens_sha256": "b"}
    hashes = {f"{name}_sha256": hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    edited, plain = Origin(**told, request=hashes), Origin(**told, request={})
    assert Given(original, mask).fields(edited) == FILES
    assert Given(original, mask).fields(plain) == {}, "others of the same command line need them"
    with pytest.raises(SetupError, match="give that with --mask"):
        Given(original).fields(edited)
    with pytest.raises(SetupError, match=r"mask\.png is not the file that it was made from"):
        Given(mask, mask).fields(edited)
    with pytest.raises(SetupError, match=r"nothing\.png cannot be read: No such file"):
        Given(tmp_path / "nothing.png", mask).fields(edited)
