"""``vqd generate --grid``: a labelled sheet of jobs that differ in one or two parameters, by a real gateway."""

import io
import sys
from pathlib import Path

import pytest
from commands import run, vqd
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image

from service.client.blocking.client import Client
from service.errors import InvalidRequest
from service.grid import MARGIN, Axis, cells, draw_grid, read_axes, sheet

FULL = """
import resource
from service import folders
from service.cli.app import main
folders.BLOCK = 1
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
main()
"""
"""The command on a disk that is full when the sheet is to be written."""


def test_axes_are_read_as_people_write_them() -> None:
    assert read_axes("s=1,2.5 r=0,1,3") == [Axis("s", (1.0, 2.5)), Axis("r", (0.0, 1.0, 3.0))]
    [samplers] = read_axes("sampler=purity,halton")
    assert (samplers.field, samplers.labels()) == ("sampler", ["sampler = purity", "sampler = halton"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "one or two different parameters"),
        ("s=1 r=1 z=1", "one or two different parameters"),
        ("s=1 guidance_scale=2", "one or two different parameters"),
        ("x=1", "'x' is none of s, r, z, guidance_scale"),
        ("prompt=a,b", "'prompt' is none of"),
        ("s", "has a value that is no float"),
        ("z=1.5", "has a value that is no int"),
        ("s=1,2,3,4,5,6,7,8,9,10,11 steps=1,2,3,4,5,6,7,8,9,10", "would have 110 pictures; at most 100"),
    ],
)
def test_what_is_no_grid_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match="--grid") as error:
        read_axes(text)
    assert complaint in str(error.value)


def test_cells_share_their_seed_and_come_row_by_row() -> None:
    found = list(cells({"prompt": "red apple", "n": 4}, read_axes("s=1,2 z=4,8")))
    assert [(cell["guidance_scale"], cell["tokens_per_step"]) for cell in found] == [(1, 4), (2, 4), (1, 8), (2, 8)]
    assert len({cell["seed"] for cell in found}) == 1
    assert {cell["n"] for cell in found} == {1}
    assert [cell["seed"] for cell in cells({"prompt": "x"}, read_axes("seed=1,2"))] == [1, 2]


def test_the_sheet_has_every_picture_at_its_place_and_all_labels() -> None:
    colours = [(40 * place, 0, 0) for place in range(6)]
    pictures = [Image.new("RGB", (8, 8), colour) for colour in colours]
    page = Image.open(io.BytesIO(sheet(pictures, read_axes("s=1,2,3 r=0,1"))))
    left, top = page.width - 3 * (96 + MARGIN), page.height - 2 * (96 + MARGIN)
    found = [
        page.getpixel((left + column * (96 + MARGIN) + 48, top + row * (96 + MARGIN) + 48))
        for row in range(2)
        for column in range(3)
    ]
    assert found == colours
    for box in ((left, 0, page.width, top), (0, top, left, page.height)):
        darkest, lightest = page.crop(box).convert("L").getextrema()
        assert (darkest < 64, lightest) == (True, 255), "black on white"


def test_the_jobs_of_a_sheet_run_together(gateway: RunningGateway, worker: TinyWorker) -> None:
    with Client(gateway.url) as client:
        page = draw_grid(client, {"prompt": "red apple"}, read_axes("seed=0,100,200"))
    picture = Image.open(io.BytesIO(page))
    assert len(worker.taken) == 3
    reds = [picture.getpixel((MARGIN + column * (96 + MARGIN) + 48, picture.height - 48)) for column in range(3)]
    assert [red for red, _, _ in reds] == [0, 100, 200]  # type: ignore[misc]


def test_what_one_cell_may_not_have_ends_the_sheet_and_its_other_jobs(
    gateway: RunningGateway, worker: TinyWorker
) -> None:
    worker.hold.set()
    with Client(gateway.url) as client, pytest.raises(InvalidRequest, match="guidance_scale"):
        draw_grid(client, {"prompt": "red apple"}, read_axes("s=1,2,99"))
    until(lambda: len(worker.ended) == len(worker.taken))
    assert [job["status"] for job in gateway.http.get("/jobs").json()["data"]] == ["cancelled", "cancelled"]


def test_the_command_saves_the_sheet_and_says_where(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    command = ("generate", "Red apple!", "--grid", "s=1,2 r=0,1", "--seed", "3", "--url", gateway.url)
    paths = [vqd(*command, cwd=tmp_path).stdout.strip() for _ in range(2)]
    assert paths == ["outputs/red-apple-grid.png", "outputs/red-apple-grid_2.png"]
    assert len(worker.taken) == 8
    assert (tmp_path / paths[0]).read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_is_said_and_no_half_sheet_left(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", FULL, "generate", "red apple", "--grid", "s=1", "--url", gateway.url]
    done = run(command, tmp_path, {})
    assert (done.returncode, done.stderr) == (1, "vqd: cannot write to outputs: File too large\n")
    assert list((tmp_path / "outputs").iterdir()) == []
