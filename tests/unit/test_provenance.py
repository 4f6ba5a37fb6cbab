"""What makes a picture again: the request, what the file says, what the file is called."""

import io
import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import ExifTags, Image
from random_requests import random_request
from samples import make_info, make_parameters

from service.condition import Condition
from service.diffusion.samplers import SAMPLERS, effort_of, field_ranges, make_plan
from service.errors import SetupError
from service.gateway.schemas import GenerateRequest
from service.gateway.validation import resolve
from service.messages import ImageFormat, Job, Priority
from service.provenance.names import disposition, file_name, slug, write_new
from service.provenance.origin import EXIF_BYTES, Origin, as_exif
from service.provenance.request import parameters_of, request_of
from service.serving import ModelInfo
from service.worker.images import encode_image

TEXTS = ["red apple", "Äpfel 苹果 🍎 سيب सेब\nzweite Zeile", 'a "b" \\ <c> &d;', "x" * 2000, "🍎" * 2000]
PIXELS = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
UNGUIDED = make_parameters(guidance_scale=1.0, guidance_schedule="interval", sampler="ancestral", tokens_per_step=None)
MODELS = [
    make_info(tokens=64, ranges=field_ranges(64, 100)),
    make_info(tokens=64, ranges=field_ranges(64, 100), defaults=UNGUIDED),
    make_info(
        tokens=64, condition=Condition.LABEL, classes=3, labels=("cat", "dog", "3"), ranges=field_ranges(64, 100)
    ),
    make_info(
        tokens=64,
        condition=Condition.NONE,
        guidance=False,
        defaults=UNGUIDED,
        ranges={name: limits for name, limits in field_ranges(64, 100).items() if name != "guidance_scale"},
    ),
]


def make_job(prompt: str = "red apple", **changes: Any) -> Job:
    fields = {"id": "j", "model": "m", "negative_prompt": None, "priority": Priority.INTERACTIVE}
    return Job(prompt=prompt, **{**fields, "parameters": make_parameters(), **changes})


def make_origin(prompt: str, image_format: ImageFormat = ImageFormat.PNG, **parameters: Any) -> Origin:
    job = make_job(prompt, parameters=make_parameters(format=image_format, **parameters), negative_prompt="blue")
    told = {"model_sha256": "ab" * 32, "dtype": "fp32", "backend": "python", "tokens_sha256": "cd" * 32}
    return Origin(version="1.2", **told, request=request_of(job, 0))


@pytest.mark.parametrize("model", MODELS, ids=["text", "text, no z", "label", "nothing"])
def test_the_parameters_of_an_answer_are_a_valid_request_for_the_same(model: ModelInfo) -> None:
    rng = random.Random(18)
    for _ in range(150):
        asked = random_request(rng, model)
        used = resolve(GenerateRequest.model_validate(asked), model)
        condition = {name: asked[name] for name in ("prompt", "label") if name in asked}
        again = GenerateRequest.model_validate_json(json.dumps(parameters_of(used) | condition))
        assert resolve(again, model) == used, asked


def test_what_a_sampler_does_not_take_is_not_in_them() -> None:
    for name, sampler in SAMPLERS.items():
        told = set(parameters_of(make_parameters(sampler=name, tokens_per_step=None)))
        assert told & {"purity_form", "final_resample", "masking_schedule"} == sampler.own


def test_a_request_makes_one_picture_alone() -> None:
    job = make_job(parameters=make_parameters(seed=7, n=4, image_index=3), label=0, truncate_prompt=True)
    request = request_of(job, 2)
    assert request.items() >= {"prompt": "red apple", "label": 0, "seed": 7, "n": 1, "image_index": 5}.items()
    assert request["truncate_prompt"] is True
    assert "negative_prompt" not in request
    assert "metadata" not in request
    assert request_of(make_job(metadata=False), 0)["metadata"] is False
    assert "prompt" not in request_of(make_job(prompt=""), 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_has_its_plan_from_its_place_in_the_seed(sampler: str) -> None:
    """md4 and halton draw their walk from the seed, so that even the number of evaluations may differ."""
    four = make_parameters(
        sampler=sampler, steps=60, tokens_per_step=4 if sampler in ("purity", "uniform") else None, n=4
    )
    alone = [four.model_copy(update={"n": 1, "image_index": image}) for image in range(4)]
    assert [*four.images] == [image for one in alone for image in one.images]
    assert effort_of(four, 64, 100).evaluations == sum(effort_of(one, 64, 100).evaluations for one in alone)
    if sampler == "md4":
        lengths = [len(make_plan(four, 64, 100, image)) for image in range(40)]
        assert len(set(lengths)) > 1
        odd = next(image for image, length in enumerate(lengths) if length != lengths[0])
        assert effort_of(four.model_copy(update={"n": 1, "image_index": odd}), 64, 100).evaluations == lengths[odd]


def test_new_fields_are_written_only_where_they_say_something() -> None:
    """A worker of the version before refuses a job with what it does not know, and only such a job."""
    plain = json.loads(make_job().model_dump_json())
    assert not {"metadata"} & plain.keys()
    assert "image_index" not in plain["parameters"]
    used = make_job(metadata=False, parameters=make_parameters(image_index=2))
    assert Job.model_validate_json(used.model_dump_json(), extra="forbid") == used


@pytest.mark.parametrize("image_format", ImageFormat)
@pytest.mark.parametrize("prompt", TEXTS, ids=["plain", "scripts", "signs", "long", "long and wide"])
def test_a_file_says_what_made_it(image_format: ImageFormat, prompt: str, tmp_path: Path) -> None:
    origin, path = make_origin(prompt, image_format), tmp_path / "picture"
    path.write_bytes(encode_image(PIXELS, image_format, origin))
    assert Origin.read(path) == origin
    with_it, without = Image.open(path), Image.open(io.BytesIO(encode_image(PIXELS, image_format)))
    assert np.array_equal(np.asarray(with_it), np.asarray(without)), "the pixels are as they were"
    assert encode_image(PIXELS, image_format, origin) == path.read_bytes(), "the same request, the same bytes"


@pytest.mark.parametrize("image_format", ImageFormat)
def test_other_tools_find_what_they_look_for(image_format: ImageFormat) -> None:
    with Image.open(io.BytesIO(encode_image(PIXELS, image_format, make_origin("Äpfel 🍎", image_format)))) as image:
        image.load()
        software, text = image.info.get("Software"), image.info.get("parameters")
        if image_format is not ImageFormat.PNG:
            software = image.getexif()[ExifTags.Base.Software]
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
            assert b"\x92\x86\x00\x07" in image.info["exif"], "of the type that the standard has for it"
            text = comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert software == "vqd 1.2"
    assert str(text).splitlines() == [
        "Äpfel 🍎",
        "Negative prompt: blue",
        "Steps: 4, Sampler: purity, CFG scale: 3.0, Seed: 0, Image index: 0, Model: m, "
        "Model hash: ababababab, Version: vqd 1.2",
    ]


def test_what_a_jpeg_has_no_room_for_is_left_out() -> None:
    """First what people read, which is in the rest, too."""
    long = make_origin("🍎" * 2000, guidance_schedule=(1.2345678901234567,) * 2700)
    assert len(long.as_json().encode()) + len(long.as_text().encode("utf-16")) > EXIF_BYTES
    assert 0 < len(as_exif(long) or b"") <= EXIF_BYTES
    endless = make_origin("x", guidance_schedule=(1.2345678901234567,) * 5000)
    assert as_exif(endless) is None
    assert encode_image(PIXELS, ImageFormat.JPEG, endless) == encode_image(PIXELS, ImageFormat.JPEG)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no picture", "no picture that can be read"),
        (encode_image(PIXELS, ImageFormat.PNG)[:60], "no picture that can be read"),
        *((encode_image(PIXELS, image_format), "without metadata") for image_format in ImageFormat),
    ],
)
def test_a_file_that_says_nothing_is_told_from_none(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(SetupError, match=why):
        Origin.read(tmp_path / "file")
    with pytest.raises(SetupError, match="No such file"):
        Origin.read(tmp_path / "nothing")


def test_what_a_later_version_says_is_refused_by_field(tmp_path: Path) -> None:
    whole = make_origin("x").model_dump()
    strange = Origin.model_construct(**{name: value for name, value in whole.items() if name != "tokens_sha256"})
    strange = strange.model_copy(update={"model_sha256": "0" * 64})
    (tmp_path / "file.png").write_bytes(encode_image(PIXELS, ImageFormat.PNG, strange))
    with pytest.raises(SetupError, match="tokens_sha256: Field required"):
        Origin.read(tmp_path / "file.png")


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Red apple", "red-apple-7-2.png"),
        ("../../etc/passwd", "etc-passwd-7-2.png"),
        (".hidden; rm -rf *", "hidden-rm-rf-7-2.png"),
        ("a/b\\c:d|e?f\ng", "a-b-c-d-e-f-g-7-2.png"),
        ("🍎🍎", "picture-7-2.png"),
        ("红苹果 Äpfel", "红苹果-äpfel-7-2.png"),
        ("हिन्दी सेब", "हिन्दी-सेब-7-2.png"),
        ("\u202egnp.exe", "gnp-exe-7-2.png"),
        ("ﬁne ①", "fine-1-7-2.png"),
        ("word " * 30, "word-word-word-word-word-word-word-word-7-2.png"),
        ("", "picture-7-2.png"),
    ],
)
def test_a_files_name_is_prompt_seed_and_number(prompt: str, name: str) -> None:
    assert file_name({"prompt": prompt, "seed": 7, "image_index": 2, "format": "png"}) == name


def test_names_are_short_in_any_script() -> None:
    for letter in "aä中\U00020000\u0e33":
        assert 0 < len(slug(letter * 5000).encode()) <= 120
    assert file_name({"label": 3, "seed": 7, "image_index": 0, "format": "webp"}) == "class-3-7-0.webp"


@pytest.mark.parametrize("prompt", ["red apple", "Äpfel", "红苹果", "हिन्दी", '"; x="', "\r\nX: y", "🍎"])
def test_a_name_in_a_header_is_safe_and_whole(prompt: str) -> None:
    """RFC 6266: ASCII for whoever reads no more, and RFC 8187's form where that is not all."""
    request = {"prompt": prompt, "seed": 7, "image_index": 0, "format": "png"}
    header = disposition(request)
    assert header.isascii()
    assert header.isprintable()
    plain, _, extended = header.partition("; filename*=UTF-8''")
    assert plain.startswith('inline; filename="')
    assert plain.endswith('-7-0.png"')
    assert plain.count('"') == 2
    assert (unquote(extended) or plain[18:-1]) == file_name(request)
    assert bool(extended) == (not file_name(request).isascii())


def test_no_file_is_written_over(tmp_path: Path) -> None:
    paths = [write_new(tmp_path, "a-7-0.png", bytes([i])) for i in range(3)]
    assert [path.name for path in paths] == ["a-7-0.png", "a-7-0_2.png", "a-7-0_3.png"]
    assert [path.read_bytes() for path in paths] == [b"\0", b"\1", b"\2"]


def test_no_half_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_new(tmp_path, "a-7-0.png", "cannot be written")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
