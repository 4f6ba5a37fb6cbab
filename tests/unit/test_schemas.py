"""The request's types and ranges, its defaults, and what Accept and Prefer mean: no server needed."""

import json

import jsonschema_rs
import pytest
from pydantic import ValidationError
from samples import make_info, make_parameters

from service.condition import Condition
from service.errors import NotAcceptable
from service.gateway.bodies import parse_object
from service.gateway.negotiation import Preference, read_accept, read_prefer
from service.gateway.problems import InvalidFields
from service.gateway.schemas import GenerateRequest
from service.gateway.validation import allowed, label_of, resolve
from service.messages import MAX_SEED, ImageFormat, Result, Timings
from service.serving import ModelInfo, Range

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
    ["a", "x" * 2000, "👩\u200d👩\u200d👧 café", "مرحبا بالعالم", "ห้องสมุด", "漢字かな交じり", "a\u202eb", "a\u00a0b"],
)
def test_prompts_of_all_scripts(prompt: str) -> None:
    assert parse(prompt=prompt).prompt == prompt


REFUSED = ["\x00", "a\x7f", "a\x85", "a\x0bb", "x" * 2001, 3, ["a"], {"a": 1}]
SHOWS_NOTHING = [
    *("", " ", "\u3000\t", "\r\n", "\u00a0", "\u2028"),
    *("\u200b", "\ufeff", "\u200d", "\u00ad", "\ufe0f", "\u2800", "\u3164", "\u202e", "\U000e0061"),
    " \u200b\ufe0f\n\u115f",
]


@pytest.mark.parametrize("prompt", REFUSED)
def test_prompts_that_are_refused(prompt: object) -> None:
    assert wrong(prompt=prompt) == {"prompt"}
    assert wrong(negative_prompt=prompt) == {"negative_prompt"}


@pytest.mark.parametrize("text", SHOWS_NOTHING)
def test_a_prompt_that_shows_nothing_is_refused_and_as_a_negative_one_it_is_none(text: str) -> None:
    assert wrong(prompt=text) == {"prompt"}
    assert parse(negative_prompt=text) == parse()


@pytest.mark.parametrize("text", ["red apple\n", "red\tapple", "red apple\r\non a table", "\u200bred\ufe0f"])
def test_line_breaks_and_tabs_are_white_space(text: str) -> None:
    assert parse(prompt=text, negative_prompt=text).prompt == text


def test_a_prompt_cannot_be_left_out() -> None:
    assert wrong(prompt=None) == {"prompt"}


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (b'{"prompt": "a", "prompt": "b"}', ["prompt"]),
        (b'{"prompt": "a", "n": 1, "seed": 1, "n": 1, "seed": 2}', ["n", "seed"]),
        (b'{"prompt": {"a": 1, "\\u0061": 2}}', ["a"]),
    ],
)
def test_a_key_that_is_given_twice_is_named(body: bytes, keys: list[str]) -> None:
    with pytest.raises(InvalidFields, match="is given more than once") as caught:
        parse_object(body)
    assert [error.field for error in caught.value.errors] == keys


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_object(b'\xef\xbb\xbf{"prompt": "a"}') == {"prompt": "a"}
    with pytest.raises(InvalidFields):
        parse_object(b'\xef\xbb\xbf\xef\xbb\xbf{"prompt": "a"}')


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


@pytest.mark.parametrize("deadline", [{}, {"deadline_s": None}, {"deadline_s": 9.0}])
@pytest.mark.parametrize("adapt", [None, False, True])
def test_to_adapt_needs_a_deadline_and_the_document_says_so(adapt: bool | None, deadline: dict[str, object]) -> None:
    fields = {"prompt": "a", "adapt": adapt, **deadline}
    needed = bool(adapt) and not deadline.get("deadline_s")
    assert jsonschema_rs.is_valid(GenerateRequest.model_json_schema(), fields) is not needed
    if needed:
        assert wrong(**fields) == {"adapt"}
    else:
        resolve(parse(**fields), MODEL)


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_to_adapt_is_yes_or_no(value: object) -> None:
    assert wrong(adapt=value, deadline_s=9) == {"adapt"}


@pytest.mark.parametrize("value", [0, 1, "true", "purity"])
def test_a_preview_is_wanted_or_not(value: object) -> None:
    assert wrong(preview=value) == {"preview"}


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
        ("application/json;q=0, */*", None, "png"),
        ("*/*, application/json;q=0", None, "png"),
        ("image/png;q=0, image/*", None, "jpeg"),
        ("image/*;q=0.9, image/webp;q=0.95, image/png;q=0.1", None, "webp"),
        ("image/*, image/png;q=0.5, application/json;q=0.7", "png", "json"),
        ("*;q=.2", None, "json"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", None, "jpeg"),  # Java's HttpURLConnection
        ("application/json, text/plain, */*", None, "json"),
        ("image/webp, */*", None, "webp"),
        ("image/jpeg, application/json", None, "jpeg"),
        ("application/json;charset=utf-8;q=0.5, image/png;q=0.4", None, "json"),
        (",", None, "json"),
    ],
)
def test_accept(header: str, asked: str | None, form: str) -> None:
    assert read_accept(header, ImageFormat(asked) if asked else None, ImageFormat.PNG) == form


@pytest.mark.parametrize(
    "header",
    [
        "image/png, application/json;q=0.5",
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
        "image/*, */*;q=0.1",
    ],
)
def test_several_pictures_are_json_wherever_that_is_acceptable(header: str) -> None:
    assert read_accept(header, None, ImageFormat.PNG, n=2) == "json"


def test_a_label_is_the_number_or_the_name_of_a_class_that_there_is() -> None:
    """The number behind the last is the model's null, which nobody asks for."""
    model = make_info(condition=Condition.LABEL, classes=3, labels=("cat", "dog", "3"))
    asked = [GenerateRequest(label=label) for label in (0, 2, "dog", "3")]
    assert [label_of(request, model) for request in asked] == [0, 2, 1, 2]
    for label in (3, 4, "cow"):
        with pytest.raises(InvalidFields, match="has no class"):
            label_of(GenerateRequest(label=label), model)


def test_an_idempotency_key_outlives_new_fields() -> None:
    """Its hash is of what was given, so that a retry after an upgrade is the same request."""
    assert parse().model_dump_json(exclude_none=True) == '{"prompt":"a","priority":"interactive"}'


@pytest.mark.parametrize("value", ["true", 1, "yes"])
def test_truncate_prompt_is_true_or_false(value: object) -> None:
    assert wrong(truncate_prompt=value) == {"truncate_prompt"}


def test_a_result_from_before_warnings_has_none() -> None:
    timings = {name: 0.5 for name, field in Timings.model_fields.items() if field.is_required()}
    old = {"images": [], "evaluations": 4, "evaluations_repeated": 0, "timings": timings}
    assert Result.model_validate(old).warnings == ()


NO_OFFER = [
    *(("text/html", None), ("image/png", "webp"), ("application/json;q=0", None)),
    *(("*/*;q=0", None), ("image/*, image/webp;q=0", "webp")),
]


@pytest.mark.parametrize(("header", "asked"), NO_OFFER)
def test_accept_without_an_offer(header: str, asked: str | None) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        read_accept(header, ImageFormat(asked) if asked else None, ImageFormat.PNG)


@pytest.mark.parametrize("header", ["image/*", "image/png, application/json;q=0", "*/*, application/json;q=0"])
def test_several_pictures_are_no_image_type(header: str) -> None:
    with pytest.raises(NotAcceptable, match="an image type needs n = 1"):
        read_accept(header, None, ImageFormat.PNG, n=2)


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
