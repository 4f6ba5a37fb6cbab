"""The JSON that clients send and get: the request, its checks against the served model, and the answers."""

import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from service.diffusion.samplers import SAMPLERS, known_sampler
from service.gateway.problems import FieldError, InvalidFields
from service.messages import (
    MAX_SEED,
    ImageFormat,
    ImageInfo,
    JobView,
    ModelInfo,
    Parameters,
    Priority,
    Range,
    Status,
    Timings,
)

MAX_PROMPT = 2000
MAX_COUNT = 2**31 - 1
MAX_DEADLINE_S = 86400


def whole(value: object) -> object:
    """JSON knows one kind of number: 4.0 is the integer 4 there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def clean_text(text: str) -> str:
    """Refuse text that shows nothing or hides something; joiners and marks of emoji and scripts are fine."""
    if not text.strip():
        raise PydanticCustomError("empty_text", "the text is empty")
    hidden = next((c for c in text if unicodedata.category(c) == "Cc"), None)
    if hidden is not None:
        code = f"U+{ord(hidden):04X}"
        raise PydanticCustomError("hidden_text", "the text has the control character {code}", {"code": code})
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT), AfterValidator(clean_text)]
Count = Annotated[int, BeforeValidator(whole), Field(ge=1, le=MAX_COUNT)]


class GenerateRequest(BaseModel):
    """What to make. What is left out takes the served model's default; `GET /v1/models` shows defaults and ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    prompt: Text = Field(description="What to draw.")
    model: str | None = Field(None, max_length=200, description="Needed when several models are served.")
    negative_prompt: Text | None = Field(None, description="What to steer away from; no effect with guidance_scale 1.")
    guidance_scale: float | None = Field(None, description="Strength s of classifier-free guidance; 1 turns it off.")
    purity_r: float | None = Field(None, description="Purity prior's r: how much confident positions are sharpened.")
    tokens_per_step: Count | None = Field(None, description="Purity prior's z: most tokens revealed in one evaluation.")
    steps: Count | None = Field(None, description="Fewest evaluations of the network.")
    sampler: Annotated[str, AfterValidator(known_sampler)] | None = Field(
        None,
        description="; ".join(f"`{sampler.name}` {sampler.text}" for sampler in SAMPLERS.values()) + ".",
        json_schema_extra={"enum": [*SAMPLERS, None]},
    )
    truncation_rate: float | None = Field(None, description="Share of the probability mass that may be drawn from.")
    temperature: float | None = Field(None, description="Divides the log-probabilities.")
    seed: Annotated[int, BeforeValidator(whole)] | None = Field(
        None, ge=0, le=MAX_SEED, description="The same seed makes the same picture; left out: drawn and reported."
    )
    n: Count | None = Field(None, description="How many pictures.")
    format: ImageFormat | None = None
    priority: Priority = Priority.INTERACTIVE
    deadline_s: float | None = Field(None, gt=0, le=MAX_DEADLINE_S, description="Fail the job when not done by then.")


WHOLE = ("seed", "n", "steps", "tokens_per_step")
TEXT = f"text of 1 to {MAX_PROMPT} characters without control characters"
ALLOWED = {
    "body": "a JSON object in UTF-8, without lone surrogates",
    "prompt": TEXT,
    "negative_prompt": TEXT,
    "model": "the name of a served model",
    "seed": f"a whole number from 0 to {MAX_SEED}",
    "deadline_s": f"a number above 0, up to {MAX_DEADLINE_S}",
    "sampler": "one of " + ", ".join(SAMPLERS),
    "format": "one of " + ", ".join(ImageFormat),
    "priority": "one of " + ", ".join(Priority),
}


def allowed(field: str, ranges: Mapping[str, Range]) -> str:
    """What ``field`` may be, in words, for error messages."""
    number = "a whole number" if field in WHOLE else "a number"
    if field in ranges:
        return f"{number} from {ranges[field].minimum:.12g} to {ranges[field].maximum:.12g}"
    known = field in GenerateRequest.model_fields
    return ALLOWED.get(field, number if known else "only " + ", ".join(GenerateRequest.model_fields))


def field_error(error: ErrorDetails, ranges: Mapping[str, Range]) -> FieldError:
    field = str(error["loc"][0]) if error["loc"] else "body"
    message = "there is no such field" if error["type"] == "extra_forbidden" else error["msg"]
    return FieldError(field, message, allowed(field, ranges))


def parse_request(body: bytes, ranges: Mapping[str, Range]) -> GenerateRequest:
    """The request of a body; ``ranges`` only serve the error messages. Raises InvalidFields."""
    try:
        return GenerateRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidFields([field_error(e, ranges) for e in error.errors()]) from None


def range_errors(request: GenerateRequest, model: ModelInfo) -> list[FieldError]:
    errors = []
    for field, limits in model.ranges.items():
        value = getattr(request, field, None)
        if value is not None and not limits.minimum <= value <= limits.maximum:
            errors.append(FieldError(field, f"{value} is out of range", allowed(field, model.ranges)))
    return errors


def resolve(request: GenerateRequest, model: ModelInfo) -> Parameters:
    """The parameters as they will be used. Raises InvalidFields for what this model does not allow."""
    errors = range_errors(request, model)
    sampler = request.sampler or model.defaults.sampler
    if sampler not in model.samplers or sampler not in SAMPLERS:
        offered = "one of " + ", ".join(model.samplers)
        errors.append(FieldError("sampler", f"{model.name} does not offer {sampler}", offered))
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
    return Parameters(**used)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageAnswer(Answer):
    index: int
    seed: int
    tokens_sha256: str = Field(description="SHA-256 of the token grid: equal hashes are equal pictures.")
    b64_json: str | None = Field(None, description="The encoded picture in base64, in a synchronous answer.")
    url: str | None = Field(None, description="Where the encoded picture is, in any other answer.")

    @classmethod
    def of(cls, job_id: str, info: ImageInfo, data: bytes | None) -> Self:
        if data is None:
            return cls(**info.model_dump(), url=f"/jobs/{job_id}/images/{info.index}")
        return cls(**info.model_dump(), b64_json=b64encode(data).decode())


class JobAnswer(Answer):
    """A job: what was asked, how far it is, and its pictures once it has succeeded."""

    id: str
    status: Status
    model: str
    images: list[ImageAnswer]
    parameters: Parameters = Field(description="As actually used: every default filled in.")
    evaluations: int = Field(description="Network evaluations the whole job takes.")
    evaluation: int = Field(description="Evaluations done.")
    committed: float = Field(description="Fraction of all tokens that have a code.")
    attempts: int
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    timings: Timings | None
    error: str | None

    @classmethod
    def of(cls, view: JobView, pictures: Sequence[bytes] | None = None) -> Self:
        """``pictures`` put the images' bytes into the answer; without them it has their addresses."""
        infos = view.result.images if view.result else ()
        data: Sequence[bytes | None] = [None] * len(infos) if pictures is None else pictures
        return cls(
            id=view.job.id,
            model=view.job.model,
            images=[ImageAnswer.of(view.job.id, info, picture) for info, picture in zip(infos, data, strict=True)],
            parameters=view.job.parameters,
            created_ms=view.job.created_ms,
            timings=view.result.timings if view.result else None,
            error=str(view.failure) if view.failure else None,
            **view.model_dump(include={"status", "evaluations", "evaluation", "committed", "attempts"}),
            **view.model_dump(include={"started_ms", "finished_ms"}),
        )


class Shapes(Answer):
    tokens: int
    codes: int
    image_width: int
    image_height: int
    text_positions: int
    timesteps: int


class ModelCard(Answer):
    """A served model: `id` is what `model` takes in a request."""

    id: str
    object: str = "model"
    sha256: str
    description: str
    licence: str
    attributions: tuple[str, ...]
    prompt_template: str
    shapes: Shapes
    samplers: tuple[str, ...]
    defaults: dict[str, Any]
    ranges: dict[str, Range]

    @classmethod
    def of(cls, model: ModelInfo) -> Self:
        facts = model.model_dump()
        # The seed of the defaults is a placeholder: a request without one gets a random seed.
        defaults = model.defaults.model_dump(mode="json", exclude={"seed"})
        return cls(**{**facts, "defaults": defaults}, id=model.name, shapes=Shapes(**facts))


class ModelList(Answer):
    object: str = "list"
    data: list[ModelCard]
