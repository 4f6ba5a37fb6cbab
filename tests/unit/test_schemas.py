"""The request's types and ranges, its defaults, and what Accept and Prefer mean: no server needed."""

import json

import pytest
from pydantic import ValidationError
from samples import make_parameters

from service.errors import NotAcceptable
from service.gateway.bodies import parse_object
from service.gateway.negotiation import Preference, read_accept, read_prefer
from service.gateway.problems import InvalidFields
from service.gateway.schemas import GenerateRequest
from service.gateway.validation import allowed, resolve
from service.messages import MAX_SEED, ImageFormat, ModelInfo, Range

DEFAULTS = make_parameters(tokens_per_step=16, steps=5)
RANGES = {"n": Range(minimum=1, maximum=4), "guidance_scale": Range(minimum=-0.5, maximum=20)}
MODEL = ModelInfo(
    name="shapes",
    sha256="",
    description="",
    licence="",
    attributions=(),
    tokens=64,
    codes=256,
    image_width=64,
    image_height=64,
    text_positions=16,
    timesteps=100,
    prompt_template="{prompt}",
    defaults=DEFAULTS,
    ranges=RANGES,
    samplers=("purity", "ancestral"),
)


def parse(**fields: object) -> GenerateRequest:
    return GenerateRequest.model_validate(parse_object(json.dumps({"prompt": "a"} | fields).encode()))


def wrong(**fields: object) -> set[str]:
    """The fields that are refused, by their type or by the model."""
    with pytest.raises((ValidationError, InvalidFields)) as caught:
        resolve(parse(**fields), MODEL)
    if isinstance(caught.value, InvalidFields):
        return {error.field for error in caught.value.errors}
    return {str(error["loc"][0]) for error in caught.value.errors()}


@pytest.mark.parametrize(
    "prompt",
    ["a", "x" * 2000, "👩\u200d👩\u200d👧 café", "مرحبا بالعالم", "ห้องสมุด", "漢字かな交じり", "\u202e", "a\u00a0b"],
)
def test_prompts_of_all_scripts(prompt: str) -> None:
    assert parse(prompt=prompt).prompt == prompt


REFUSED = ["", " ", "\u3000\t", "a\nb", "\x00", "a\x7f", "a\x85", "x" * 2001, 3, None, ["a"], {"a": 1}]


@pytest.mark.parametrize("prompt", REFUSED)
def test_prompts_that_are_refused(prompt: object) -> None:
    assert wrong(prompt=prompt) == {"prompt"}
    if prompt is not None:
        assert wrong(negative_prompt=prompt) == {"negative_prompt"}


@pytest.mark.parametrize("field", ["guidance_scale", "purity_r", "truncation_rate", "temperature", "deadline_s"])
@pytest.mark.parametrize("value", [True, "1", [1], {}, float("nan"), float("inf"), 10**400])
def test_numbers_are_strict(field: str, value: object) -> None:
    assert wrong(**{field: value}) == {field}


@pytest.mark.parametrize("field", ["tokens_per_step", "steps", "n", "seed"])
@pytest.mark.parametrize("value", [True, "1", 1.5, -1, 10**400, 1e300, float("nan")])
def test_whole_numbers_are_strict(field: str, value: object) -> None:
    assert wrong(**{field: value}) == {field}


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert parse(steps=4.0, seed=2.0).model_dump(include={"steps", "seed"}) == {"steps": 4, "seed": 2}


def test_null_is_absence() -> None:
    fields = dict.fromkeys(set(GenerateRequest.model_fields) - {"prompt", "priority"})
    assert parse(**fields) == parse()


def test_the_models_ranges() -> None:
    assert wrong(n=5) == {"n"}
    assert wrong(guidance_scale=-0.6) == {"guidance_scale"}
    assert resolve(parse(n=4, guidance_scale=-0.5), MODEL).n == 4
    assert allowed("guidance_scale", RANGES) == "a number from -0.5 to 20"


def test_defaults_are_filled_in() -> None:
    used = resolve(parse(seed=3, format="webp", temperature=0.5), MODEL)
    assert used == DEFAULTS.model_copy(update={"seed": 3, "format": ImageFormat.WEBP, "temperature": 0.5})


def test_a_seed_is_drawn() -> None:
    seeds = {resolve(parse(), MODEL).seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


def test_samplers_and_tokens_per_step() -> None:
    assert resolve(parse(sampler="ancestral"), MODEL).tokens_per_step is None
    assert wrong(sampler="ancestral", tokens_per_step=4) == {"tokens_per_step"}
    assert wrong(sampler="uniform") == {"sampler"}
    ancestral = DEFAULTS.model_copy(update={"sampler": "ancestral", "tokens_per_step": None})
    model = MODEL.model_copy(update={"defaults": ancestral})
    assert resolve(parse(sampler="purity"), model).tokens_per_step == 13  # ⌈64 / 5⌉
    with pytest.raises(InvalidFields, match="tokens_per_step"):
        resolve(parse(tokens_per_step=4), model)


@pytest.mark.parametrize(
    ("header", "asked", "form"),
    [
        ("", None, "json"),
        ("*/*", None, "json"),
        ("application/*", None, "json"),
        ("image/*", None, "png"),
        ("IMAGE/WEBP", None, "webp"),
        ("image/*", "jpeg", "jpeg"),
        ("image/webp;q=0.3, image/jpeg;q=0.7", None, "jpeg"),
        ("application/json;q=0, image/png", None, "png"),
        ("text/html, image/png;q=0.2, */*;q=0.1", None, "png"),
        ("image/png;q=zero, application/json;q=0.1", None, "json"),
    ],
)
def test_accept(header: str, asked: str | None, form: str) -> None:
    assert read_accept(header, ImageFormat(asked) if asked else None, ImageFormat.PNG) == form


NO_OFFER = [("text/html", None), ("image/png", "webp"), ("application/json;q=0", None)]


@pytest.mark.parametrize(("header", "asked"), NO_OFFER)
def test_accept_without_an_offer(header: str, asked: str | None) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        read_accept(header, ImageFormat(asked) if asked else None, ImageFormat.PNG)


@pytest.mark.parametrize(
    ("header", "wait_s", "keep", "applied"),
    [
        ("", 60, False, None),
        ("respond-async", 0, True, "respond-async"),
        ("Respond-Async; foo=bar", 0, True, "respond-async"),
        ("wait=10", 10, False, "wait=10"),
        ('wait = "10"', 10, False, "wait=10"),
        ("wait=100", 60, False, "wait=100"),
        ("respond-async, wait=5", 5, True, "respond-async, wait=5"),
        ("wait=-1", 60, False, None),
        ("wait=soon, return=minimal", 60, False, None),
    ],
)
def test_prefer(header: str, wait_s: float, keep: bool, applied: str | None) -> None:
    assert read_prefer(header, 60) == Preference(wait_s, keep, applied)
