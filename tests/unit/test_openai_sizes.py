"""Which sizes a client of the Images API may ask for, and what becomes of a picture."""

import io

import numpy as np
import pytest
from PIL import Image

from service.gateway.openai.rendering import Rendering, size_in
from service.gateway.openai.sizes import MOST_PIXELS, Size, largest, size_of
from service.gateway.problems import InvalidFields
from service.messages import ImageFormat
from service.provenance.origin import Origin, told_by
from service.settings import Scaling
from service.worker.images import encode_image

OWN = Size(32, 24)
ORIGIN = Origin(version="1", model_sha256="ab" * 32, tokens_sha256="cd" * 32, request={"prompt": "a red circle"})


@pytest.mark.parametrize(("asked", "times"), [(None, 1), ("auto", 1), ("32x24", 1), ("64x48", 2), ("1024x768", 32)])
def test_a_size_is_a_whole_multiple(asked: str | None, times: int) -> None:
    size = size_of(asked, OWN, 1, "lanczos")
    assert (size.times, size.pixels) == (times, (32 * times, 24 * times))


@pytest.mark.parametrize("asked", ["16x12", "33x24", "64x24", "1024x1024", "99999x99999", "24x32"])
def test_no_other_size(asked: str) -> None:
    with pytest.raises(InvalidFields, match=f"{asked} cannot be made of 32x24.*auto, 32x24, or a whole multiple"):
        size_of(asked, OWN, 1, "nearest")


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_all_pictures_together_have_a_bound(n: int) -> None:
    most = largest(OWN, n)
    assert n * 32 * 24 * most**2 <= MOST_PIXELS < n * 32 * 24 * (most + 1) ** 2
    assert size_of(f"{32 * most}x{24 * most}", OWN, n, "lanczos").times == most
    with pytest.raises(InvalidFields):
        size_of(f"{32 * (most + 1)}x{24 * (most + 1)}", OWN, n, "lanczos")


def test_a_model_above_the_bound_keeps_its_own() -> None:
    huge = Size(8192, 8192)
    assert size_of("8192x8192", huge, 10, "lanczos") == huge
    assert largest(huge, 10) == 1


def test_scaling_may_be_off() -> None:
    assert size_of("32x24", OWN, 1, "off") == OWN
    with pytest.raises(InvalidFields, match=r"auto or 32x24\)"):
        size_of("64x48", OWN, 1, "off")


def made() -> tuple[np.ndarray, bytes]:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    return pixels, encode_image(pixels, ImageFormat.PNG, ORIGIN)


@pytest.mark.parametrize("scaling", ["nearest", "lanczos"])
@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_a_rendered_picture(scaling: Scaling, image_format: ImageFormat) -> None:
    _, file = made()
    rendering = Rendering(Size(32, 24, 3), image_format, None, scaling)
    assert rendering.needed
    assert rendering.made_in is ImageFormat.PNG
    data = rendering.render(file)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.size, picture.format) == ((96, 72), image_format.name)
        assert Origin.model_validate_json(told_by(picture) or "") == ORIGIN
    assert size_in(data) == Size(96, 72)


def test_nearest_repeats_each_pixel() -> None:
    pixels, file = made()
    data = Rendering(Size(32, 24, 2), ImageFormat.PNG, None, "nearest").render(file)
    assert (np.array(Image.open(io.BytesIO(data))) == pixels.repeat(2, 0).repeat(2, 1)).all()


def test_lanczos_does_not() -> None:
    pixels, file = made()
    data = Rendering(Size(32, 24, 2), ImageFormat.PNG, None, "lanczos").render(file)
    assert (np.array(Image.open(io.BytesIO(data))) != pixels.repeat(2, 0).repeat(2, 1)).any()


@pytest.mark.parametrize("image_format", [ImageFormat.JPEG, ImageFormat.WEBP])
def test_less_quality_is_less_bytes(image_format: ImageFormat) -> None:
    _, file = made()
    sizes = [len(Rendering(OWN, image_format, quality, "lanczos").render(file)) for quality in (0, 50, 100)]
    assert sizes == sorted(set(sizes))


def test_what_is_as_it_was_made_is_left_alone() -> None:
    rendering = Rendering(OWN, ImageFormat.WEBP, None, "lanczos")
    assert not rendering.needed
    assert rendering.made_in is ImageFormat.WEBP
