"""Which values a request's fields may have, and what to say about a wrong one."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from service.condition import Condition
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import CHOICES, OWN, SAMPLERS
from service.errors import RedisUnavailable
from service.gateway.openai import request as images
from service.gateway.openai.errors import speaks
from service.gateway.pictures.edits import edit_errors
from service.gateway.pictures.reading import FILE
from service.gateway.previews import Wanted
from service.gateway.problems import FieldError, InvalidFields, problem_of
from service.gateway.schemas import MAX_COUNT, MAX_DEADLINE_S, MAX_LISTED, MAX_URL, OF_GUIDANCE, TAKEN, GenerateRequest
from service.gateway.state import Gateway
from service.gateway.texts import MAX_PROMPT
from service.messages import MAX_SEED, ImageFormat, Parameters, Priority
from service.serving import ModelInfo, Range

WHOLE = ("seed", "n", "image_index", "steps", "tokens_per_step")
TEXT = f"text of 1 to {MAX_PROMPT} characters without control characters"
ALLOWED = {
    "prompt": TEXT,
    "negative_prompt": TEXT,
    "label": "the number or the name of one of the model's classes",
    "guidance_schedule": "one of " + ", ".join(GUIDANCE_SCHEDULES) + ", or a list of guidance scales",
    "masking_schedule": "one of " + ", ".join(CHOICES["masking_schedule"]) + ", with sampler md4",
    "purity_form": "one of " + ", ".join(CHOICES["purity_form"]) + ", with sampler purity",
    "final_resample": "true or false, with sampler purity or uniform",
    "image_index": f"a whole number from 0 to {MAX_COUNT}",
    "metadata": "true or false",
    "model": "the name of a served model",
    "truncate_prompt": "true or false",
    "seed": f"a whole number from 0 to {MAX_SEED}",
    "deadline_s": f"a number above 0, up to {MAX_DEADLINE_S}",
    "adapt": "true or false; true only with deadline_s",
    "preview": "true or false",
    "sampler": "one of " + ", ".join(SAMPLERS),
    "format": "one of " + ", ".join(ImageFormat),
    "priority": "one of " + ", ".join(Priority),
    "webhook_url": f"a URL that begins with https://, of at most {MAX_URL} characters",
    "image": FILE,
    "mask": FILE,
    "strength": "a number from 0 to 1",
    "composite": "true or false",
    "pinned": "a list of whole numbers",
    "image_sha256": "64 digits from 0 to f",
    "mask_sha256": "64 digits from 0 to f",
}

ALLOWED_OUTSIDE = {
    "limit": f"a whole number from 1 to {MAX_LISTED}",
    "preview": "one of " + ", ".join(Wanted),
    "after": "the id of a job",
    "job_id": "the id of a job",
    "index": "the number of a picture, from 0",
    "Last-Event-ID": "the id of an event, such as 12-0",
    "Idempotency-Key": "1 to 255 visible ASCII characters, and no space",
}
"""In path, query and headers."""
WORDS = {
    "extra_forbidden": "there is no such field",
    "none_required": "takes no value here",
    "string_pattern_mismatch": "is not written as it should be",
}
"""What is said in place of the framework's words, which are about its own types."""

NAMED = 40
"""Wrong fields that are described: an answer has room for fewer, and a body may have thousands."""


def allowed(field: str, ranges: Mapping[str, Range], model: type[GenerateRequest] = GenerateRequest) -> str:
    """What ``field`` of a request like ``model`` may be, in words, for error messages."""
    number = "a whole number" if field in WHOLE else "a number"
    if model is not GenerateRequest and field in images.ALLOWED:
        return images.ALLOWED[field]
    if field in ranges:
        return f"{number} from {ranges[field].minimum:.12g} to {ranges[field].maximum:.12g}"
    known = field in model.model_fields
    return ALLOWED.get(field, number if known else "only " + ", ".join(model.model_fields))


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """The answer when FastAPI finds a field, a header or a part of the path wrong."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    in_body = any(one["loc"][0] == "body" for one in found)
    ranges = await served_ranges(request.app.state.gateway) if in_body else {}
    model = images.EditRequest if speaks(request.scope) else GenerateRequest
    return problem_of(request, InvalidFields([describe(one, ranges, model) for one in islice(once_each(found), NAMED)]))


def once_each(errors: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """One error for each field, the deepest: what may be of several kinds is found wrong as each of them, and a part of
    the path by each function that takes it."""
    fields: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for error in errors:
        fields.setdefault(error["loc"][:2], []).append(error)
    for found in fields.values():
        yield max(found, key=lambda error: len(error["loc"]))


async def served_ranges(gateway: Gateway) -> Mapping[str, Range]:
    """The ranges of the only served model. None when there are more, or Redis is down; messages are less exact then."""
    try:
        models = list((await gateway.directory.models()).values())
    except RedisUnavailable:
        gateway.metrics.redis_errors.inc()
        return {}
    return models[0].ranges if len(models) == 1 else {}


def describe(error: Mapping[str, Any], ranges: Mapping[str, Range], model: type[GenerateRequest]) -> FieldError:
    place, field = error["loc"][:2]
    if place != "body":
        return FieldError(field, error["msg"], ALLOWED_OUTSIDE.get(field))
    message = WORDS.get(error["type"], error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and (close := get_close_matches(field, model.model_fields, 1)):
        message += f"; did you mean {close[0]}?"
    return FieldError(field, message, allowed(field, ranges, model))


def range_errors(request: GenerateRequest, model: ModelInfo) -> list[FieldError]:
    errors = []
    for field, limits in model.ranges.items():
        value = getattr(request, field, None)
        if value is not None and not limits.minimum <= value <= limits.maximum:
            errors.append(FieldError(field, f"{value} is out of range", allowed(field, model.ranges)))
    return errors


NEEDED = {Condition.TEXT: "a prompt", Condition.LABEL: "a label", Condition.NONE: "nothing"}


def condition_errors(request: GenerateRequest, model: ModelInfo) -> list[FieldError]:
    """What it is to draw is missing, or is of another kind of model."""
    own = TAKEN[model.condition]
    errors = [
        FieldError(name, f"{model.name} draws from {NEEDED[model.condition]}", "nothing for this model")
        for names in TAKEN.values()
        for name in names
        if name not in own and getattr(request, name) is not None
    ]
    if own and getattr(request, own[0]) is None:
        why = f"is missing: {model.name} draws from {NEEDED[model.condition]}"
        errors.append(FieldError(own[0], why, ALLOWED[own[0]]))
    return errors


def guidance_errors(request: GenerateRequest, model: ModelInfo) -> list[FieldError]:
    given = [name for name in OF_GUIDANCE if getattr(request, name) is not None]
    if not model.guidance:
        # What it does anyway may be said: an answer's parameters hold it.
        given = [name for name in given if getattr(request, name) != getattr(model.defaults, name, None)]
        why = f"{model.name} has no null to be guided away from"
        return [FieldError(name, why, "nothing for this model") for name in given]
    limits, wanted = model.ranges.get("guidance_scale"), request.guidance_schedule
    if limits is None or not isinstance(wanted, list):
        return []
    wrong = next((value for value in wanted if not limits.minimum <= value <= limits.maximum), None)
    each = f"a list of numbers from {limits.minimum:.12g} to {limits.maximum:.12g}"
    return [] if wrong is None else [FieldError("guidance_schedule", f"{wrong} is out of range", each)]


def choice_errors(request: GenerateRequest, sampler: str) -> list[FieldError]:
    mine = SAMPLERS[sampler].own if sampler in SAMPLERS else set()
    return [
        FieldError(name, f"does not apply to sampler {sampler}", ALLOWED[name])
        for name in sorted(OWN)
        if name not in mine and getattr(request, name) is not None
    ]


def deadline_errors(request: GenerateRequest) -> list[FieldError]:
    if request.adapt and request.deadline_s is None:
        return [FieldError("adapt", "needs deadline_s, the deadline that is to be met", ALLOWED["adapt"])]
    return []


def label_of(request: GenerateRequest, model: ModelInfo) -> int | None:
    """The number of the class that is asked for. Raises InvalidFields for one that the model does not have."""
    label = request.label
    if label is None:
        return None
    if isinstance(label, str) and label in model.labels:
        return model.labels.index(label)
    if isinstance(label, int) and label < model.classes:
        return label
    numbers = f"a whole number from 0 to {model.classes - 1}"
    names = " or the name of a class: GET /v1/models lists them" if model.labels else "; its classes have no names"
    raise InvalidFields([FieldError("label", f"{model.name} has no class {label!r:.60}", numbers + names)])


def resolve(request: GenerateRequest, model: ModelInfo) -> Parameters:
    """The parameters as they will be used. Raises InvalidFields for what this model does not allow."""
    errors = [*range_errors(request, model), *condition_errors(request, model), *guidance_errors(request, model)]
    errors += [*edit_errors(request, model), *deadline_errors(request)]
    sampler = request.sampler or model.defaults.sampler
    if sampler not in model.samplers or sampler not in SAMPLERS:
        offered = "one of " + ", ".join(model.samplers)
        errors.append(FieldError("sampler", f"{model.name} does not offer {sampler}", offered))
    errors += choice_errors(request, sampler)
    refused = SAMPLERS[sampler].refuses if sampler in SAMPLERS else {}
    for field, reason in refused.items():
        if getattr(request, field) is not None:
            errors.append(FieldError(field, reason, f"nothing, or another sampler than {sampler}"))
    if errors:
        raise InvalidFields(errors)
    given = {f: v for f, v in request.model_dump(exclude_none=True).items() if f in Parameters.model_fields}
    used = {**model.defaults.model_dump(), "seed": secrets.randbelow(MAX_SEED + 1), **given}
    used |= dict.fromkeys(refused)
    if used["tokens_per_step"] is None and "tokens_per_step" not in refused:  # the default sampler may have no z
        used["tokens_per_step"] = -(-model.tokens // used["steps"])
    parameters = Parameters(**used)
    if parameters.images[-1] > MAX_COUNT:
        why = f"the last of {parameters.n} pictures would be number {parameters.images[-1]}"
        raise InvalidFields([FieldError("image_index", why, allowed("image_index", {}))])
    return parameters
