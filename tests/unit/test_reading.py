"""Files of strangers: what is refused by its header, what is read and how, and that nothing else ever comes out."""

import contextlib
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import file_of, noise, png_header
from PIL import Image, ImageOps

from service.gateway.pictures.reading import Limits, changes_of, middle, pixels_of, read_header
from service.gateway.problems import InvalidFields

LIMITS = Limits(bytes=2**20, pixels=2**20)
SMALL = noise(8, 8)
FILES = {kind: file_of(noise(40, 24), kind) for kind in ("png", "jpeg", "webp")}


def read(data: bytes, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return pixels_of(read_header("image", data, LIMITS), size)


def refusal(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(InvalidFields) as raised:
        pixels_of(read_header("image", data, limits), (8, 8))
    assert raised.value.field == "image"
    return str(raised.value)


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(noise(8, 8, seed)) for seed in range(3)]
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)


def test_a_picture_of_the_models_size_is_taken_as_it_is() -> None:
    assert (read(file_of(SMALL)) == SMALL).all()
    wide = noise(14, 8)
    assert (read(file_of(wide)) == wide[:, 3:11]).all(), "its middle is of that size"


@pytest.mark.parametrize("kind", FILES)
def test_each_format_is_read(kind: str) -> None:
    assert read(FILES[kind]).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("size", "wanted", "box"),
    [((40, 24), (8, 8), (8, 0, 32, 24)), ((24, 40), (8, 8), (0, 8, 24, 32)), ((40, 40), (8, 4), (0, 10, 40, 30))],
)
def test_the_middle_is_taken(size: tuple[int, int], wanted: tuple[int, int], box: tuple[int, ...]) -> None:
    assert middle(size, wanted) == box
    whole = Image.fromarray(noise(*size))
    expected = np.asarray(whole.crop(box).resize(wanted, Image.Resampling.LANCZOS))
    assert np.abs(read(file_of(whole), wanted).astype(int) - expected).max() < 20


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_camera_that_was_turned(value: int, kind: str) -> None:
    """As Pillow turns the whole picture: blocks of colour, so that JPEG and scaling leave them apart."""
    blocks = Image.fromarray(noise(4, 2, 3)).resize((128, 64), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = value
    data = file_of(blocks, kind, exif=exif, quality=100)
    sent = read_header("image", data, LIMITS)
    assert sent.size == ((64, 128) if value >= 5 else (128, 64))
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    width, height = upright.size
    square = upright.crop((width / 2 - 32, height / 2 - 32, width / 2 + 32, height / 2 + 32))
    expected = np.asarray(square.resize((2, 2), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels_of(sent, (2, 2)).astype(int) - expected).max() < 20


def test_a_jpeg_of_a_camera_is_decoded_no_larger_than_it_must_be() -> None:
    sent = read_header("image", file_of(np.full((1024, 1024, 3), 200, np.uint8), "jpeg"), LIMITS)
    assert pixels_of(sent, (8, 8)).min() > 195
    assert max(sent.image.size) == 128, "an eighth, the smallest that there is"


def test_what_is_transparent_is_white() -> None:
    pixels = noise(8, 8, channels=4)
    pixels[:, :4, 3], pixels[:, 4:, 3] = 0, 255
    out = read(file_of(pixels))
    assert (out[:, :4] == 255).all()
    assert (out[:, 4:] == pixels[:, 4:, :3]).all()


def test_other_kinds_of_pixels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    rgb = np.repeat(grey[..., None], 3, 2)
    assert (read(file_of(grey)) == rgb).all()
    assert (read(file_of(Image.fromarray(grey.astype(np.uint16) * 256 + 5))) == rgb).all(), "16 bits"
    assert (read(file_of(Image.fromarray(rgb).quantize(64))) == rgb).all(), "a palette"
    assert read(file_of(Image.fromarray(rgb).convert("CMYK"), "jpeg")).shape == (8, 8, 3)
    bilevel = Image.fromarray(grey).convert("1")
    assert {*np.unique(read(file_of(bilevel)))} <= {0, 255}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (file_of(SMALL, "gif"), "no picture"),
        (file_of(SMALL, "tiff"), "no picture"),
        (file_of(SMALL, "ppm"), "no picture"),
        (animated("png"), "animated"),
        (animated("webp"), "animated"),
        (png_header(30_000, 30_000), "more pixels"),
        (png_header(10_000, 10_000), "more pixels"),
        (png_header(2000, 1000), "2000x1000 pixels"),
        (png_header(8, 8), "cut off"),
        (FILES["png"][:-400], "cut off"),
        (FILES["jpeg"][:-300], "cut off"),
        (FILES["webp"][:-100], "no picture|cut off"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "no picture"),
        (bytes(2**20 + 1), "has 1048577 bytes"),
    ],
)
def test_what_is_refused_and_why(data: bytes, says: str) -> None:
    assert re.search(says, refusal(data))


def test_100_megapixels_are_refused_before_they_are_decoded() -> None:
    """A file that could be decoded: a few kB that would be 300 MB."""
    row = b"\0" + bytes(3 * 10_000)
    data = png_header(10_000, 10_000, row * 500)
    assert "pixels" in refusal(data)
    assert "pixels" in refusal(png_header(5000, 5000), Limits(2**20, 2**24))


def test_more_frames_that_a_camera_writes_beside_a_jpeg_are_no_animation() -> None:
    frames = [Image.fromarray(noise(8, 8, seed)) for seed in range(2)]
    data = file_of(frames[0], "mpo", save_all=True, append_images=frames[1:])
    assert read(data).shape == (8, 8, 3)


def test_broken_exif_is_left_aside() -> None:
    assert read(file_of(SMALL, "png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).shape == (8, 8, 3)


def test_broken_exif_writes_nothing_into_the_log(tmp_path: Path) -> None:
    file = tmp_path / "broken.jpeg"
    file.write_bytes(file_of(SMALL, "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0"))
    program = "import sys; from test_reading import Path, read; read(Path(sys.argv[1]).read_bytes())"
    tests = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = run([sys.executable, "-c", program, str(file)], tmp_path, {"PYTHONPATH": ":".join([*tests, *sys.path])})
    assert (done.returncode, done.stderr) == (0, "")


@given(
    st.sampled_from([*FILES]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8),
    st.integers(0, 400),
)
@settings(deadline=None, max_examples=400, database=None, derandomize=True)
def test_broken_files_are_read_or_refused(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(InvalidFields):
        assert read(bytes(data[: len(data) - cut])).shape == (8, 8, 3)


def mask_of(pixels: np.ndarray, side: int = 2) -> list[list[bool]]:
    return changes_of(read_header("mask", file_of(pixels), LIMITS), (side, side)).tolist()


def test_half_of_a_cell_decides() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:2, :4] = 255  # half of the first cell
    mask[:4, 4:6] = 255
    mask[0, 4] = 0  # less than half of the second
    mask[4:, 4:] = 255
    assert mask_of(mask) == [[True, False], [False, True]]


def test_transparent_or_white_means_change() -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:, :2] = 255, 255, 255, 255
    assert mask_of(clear) == [[False, True], [False, True]], "white, but the other half is transparent"
    opaque = clear.copy()
    opaque[..., 3] = 255
    assert mask_of(opaque) == [[True, False], [True, False]]
