"""The JSON that clients send and get."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from service.condition import Condition
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES, known_schedule
from service.diffusion.samplers import CHOICES, OWN, SAMPLERS, known_sampler
from service.gateway.pictures.answer import COMPOSITE, IMAGE, MASK, PINNED, STRENGTH, EditAnswer, Sha256
from service.gateway.pictures.upload import Upload
from service.gateway.problems import Absent, for_clients, urn
from service.gateway.texts import OptionalText, Text
from service.messages import MAX_SEED, ImageFormat, ImageInfo, Job, JobView, Priority, PurityForm, Status, Timings
from service.provenance.request import parameters_of, request_of
from service.queue.previews import PreviewsFor
from service.serving import ModelInfo

MAX_COUNT = 2**31 - 1
MAX_DEADLINE_S = 86400
MAX_LISTED = 100
"""Jobs in one answer."""
MAX_URL = 2000
"""Characters of a webhook_url."""


def whole(value: object) -> object:
    """JSON knows one kind of number: 4.0 is the integer 4 there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


Named = Field(strict=False)
"""For an enum. A strict one takes only its own members, and FastAPI hands over plain strings."""
# The bounds stand before ``whole``: behind it pydantic writes them into the schema under names of its own.
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), BeforeValidator(whole)]

ScheduleName = Annotated[
    str, AfterValidator(known_schedule), Field(title="ScheduleName", json_schema_extra={"enum": [*GUIDANCE_SCHEDULES]})
]
MaskingName = Annotated[str, Field(pattern="^(" + "|".join(CHOICES["masking_schedule"]) + ")$")]
Index = Annotated[int, Field(ge=0, le=MAX_COUNT), BeforeValidator(whole)]
Label = Annotated[int, Field(ge=0, le=MAX_COUNT), BeforeValidator(whole)] | Annotated[str, Field(max_length=200)]
SamplerName = Annotated[
    str, AfterValidator(known_sampler), Field(title="SamplerName", json_schema_extra={"enum": [*SAMPLERS]})
]
WebhookUrl = Annotated[str, Field(max_length=MAX_URL, json_schema_extra={"format": "uri"})]
REFUSED: list[JsonValue] = [
    {"properties": {"sampler": {"const": name}, field: {"not": {"type": "null"}}}, "required": ["sampler", field]}
    for name, sampler in SAMPLERS.items()
    for field in (*sampler.refuses, *sorted(OWN - sampler.own))
]
REFUSED.append({"properties": {"adapt": {"const": True}, "deadline_s": {"type": "null"}}, "required": ["adapt"]})
NAMED_WITH: JsonValue = {name: ["sampler"] for name in sorted(OWN)}
PICTURE = {f.media_type: {"schema": {"type": "string", "format": "binary"}} for f in ImageFormat}
"""For the OpenAPI document: an encoded picture."""


class GenerateRequest(BaseModel):
    """What to make. What is left out takes the served model's default; `GET /v1/models` shows defaults and ranges."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={"not": {"anyOf": REFUSED}, "dependentRequired": NAMED_WITH},
    )

    prompt: Text | None = Field(None, description="What to draw; needed by a model that draws from text.")
    label: Label | None = Field(
        None, description="Which class to draw, by its number or name; needed by a model that draws classes."
    )
    model: str | None = Field(None, max_length=200, description="Needed when several models are served.")
    negative_prompt: OptionalText = Field(None, description="What to steer away from; no effect with guidance_scale 1.")
    truncate_prompt: bool | None = Field(
        None, description="Cut prompts that are too long for the model, and say so in `warnings`, in place of a 422."
    )
    guidance_scale: float | None = Field(None, description="Strength s of classifier-free guidance; 1 turns it off.")
    guidance_schedule: ScheduleName | list[float] | None = Field(
        None,
        description="How s changes while the picture appears: `constant`; `ramp` grows with it; `interval` begins at "
        "half of it, and costs no second pass before; `cosine` grows late. Or s of each evaluation, as a list.",
    )
    purity_r: float | None = Field(None, description="Purity prior's r: how much confident positions are sharpened.")
    tokens_per_step: Count | None = Field(None, description="Purity prior's z: most tokens revealed in one evaluation.")
    steps: Count | None = Field(None, description="Fewest evaluations of the network.")
    sampler: SamplerName | None = Field(
        None, description="; ".join(f"`{sampler.name}` {sampler.text}" for sampler in SAMPLERS.values()) + "."
    )
    masking_schedule: MaskingName | None = Field(None, description="Only for the sampler `md4`: how fast it reveals.")
    truncation_rate: float | None = Field(None, description="Share of the probability mass that may be drawn from.")
    temperature: float | None = Field(None, description="Divides the log-probabilities.")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(whole)] | None = Field(
        None, description="The same seed makes the same picture; left out: drawn and reported."
    )
    n: Count | None = Field(None, description="How many pictures.")
    image_index: Index | None = Field(
        None, description="Which picture of the seed, or with n > 1 the first one; 0 unless given."
    )
    purity_form: Annotated[PurityForm, Named] | None = Field(
        None, description="For research, with sampler `purity`: how r sharpens, by the purity or by a power of it."
    )
    final_resample: bool | None = Field(
        None, description="For research, with `purity` and `uniform`: whether the last evaluation draws all anew."
    )
    metadata: bool | None = Field(None, description="`false`: the files do not say what made them.")
    image: Upload | None = Field(None, repr=False, description=IMAGE)
    mask: Upload | None = Field(None, repr=False, description=MASK)
    strength: float | None = Field(None, ge=0, le=1, description=STRENGTH)
    composite: bool | None = Field(None, description=COMPOSITE)
    pinned: list[int] | None = Field(None, description=PINNED)
    image_sha256: Sha256 | None = Field(None, description="Of the file that must be sent as `image`.")
    mask_sha256: Sha256 | None = Field(None, description="Of the file that must be sent as `mask`.")
    format: Annotated[ImageFormat, Named] | None = None
    # openapi-typescript takes a field with a default for one that is always there, in requests, too.
    priority: Annotated[Priority, Named] = Field(Priority.INTERACTIVE, json_schema_extra=without_default)
    deadline_s: float | None = Field(None, gt=0, le=MAX_DEADLINE_S, description="Fail the job when not done by then.")
    webhook_url: WebhookUrl | None = Field(
        None, repr=False, description="Where the end of the job is posted to, as Standard Webhooks."
    )
    adapt: bool | None = Field(None, description="Take fewer evaluations if it needs that to meet its `deadline_s`.")
    preview: bool | None = Field(
        None, description="Have the job's events show the pictures so far, as `?preview=true` there does."
    )

    @property
    def previews(self) -> PreviewsFor | None:
        """For whom the worker is to make some from the beginning."""
        return PreviewsFor.EVERYBODY if self.preview else None


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageAnswer(Answer):
    index: int = Field(description="Its place in the job.")
    image_index: int = Field(description="Which picture of the seed it is: with `seed` what its noise depends on.")
    seed: int
    tokens_sha256: str = Field(description="SHA-256 of the token grid: equal hashes are equal pictures.")
    request: dict[str, JsonValue] = Field(description="`POST /generate` of it makes this one picture again.")
    b64_json: str | Absent = Field(None, description="The encoded picture in base64, in a synchronous answer.")
    url: str | Absent = Field(None, description="Where the encoded picture is, in any other answer.")

    @classmethod
    def of(cls, job: Job, job_url: str, info: ImageInfo, data: bytes | None) -> Self:
        facts = info.model_dump() | {"image_index": job.parameters.image_index + info.index}
        request = request_of(job, info.index)
        if data is None:
            return cls(**facts, request=request, url=f"{job_url}/images/{info.index}")
        return cls(**facts, request=request, b64_json=b64encode(data).decode())


OF_THE_SAMPLER: Any = Field(None, description="Absent where the sampler has none.")


class UsedParameters(Answer):
    """As actually used: every default filled in, and nothing that the sampler does not take. A request takes it all."""

    guidance_scale: float
    guidance_schedule: str | tuple[float, ...]
    purity_r: float
    purity_form: PurityForm | Absent = OF_THE_SAMPLER
    tokens_per_step: int | Absent = OF_THE_SAMPLER
    steps: int
    sampler: str
    masking_schedule: str | Absent = OF_THE_SAMPLER
    truncation_rate: float
    temperature: float
    final_resample: bool | Absent = OF_THE_SAMPLER
    seed: int
    n: int
    image_index: int
    format: ImageFormat


class JobAnswer(Answer):
    """A job: what was asked, how far it is, and its pictures once it has succeeded."""

    id: str
    status: Status
    model: str
    prompt: str | Absent = Field(None, description="What it draws, with a model that draws from text.")
    label: int | Absent = Field(None, description="The number of the class that it draws, with a model of classes.")
    images: list[ImageAnswer]
    parameters: UsedParameters
    edit: EditAnswer | Absent = Field(None, description="What the pictures began with, if anything.")
    evaluations: int = Field(description="Network evaluations the whole job takes.")
    evaluation: int = Field(description="Evaluations done.")
    committed: float = Field(description="Fraction of all tokens that have a code.")
    attempts: int
    ahead: int | Absent = Field(
        None, description="While it waits: jobs of its priority that would go first now; every key takes its turn."
    )
    estimate_s: float | Absent = Field(
        None, description="While it waits: seconds that those take at the workers' pace; absent where none is known."
    )
    created_ms: int
    started_ms: int | Absent = None
    finished_ms: int | Absent = None
    timings: Timings | Absent = None
    warnings: list[str] | Absent = Field(
        None, description="What was not drawn, or not made, as it was asked for; there once it has succeeded."
    )
    dtype: str | Absent = Field(None, description="What the network computed in; there once it has succeeded.")
    backend: str | Absent = Field(None, description="What the network was exported for; there once it has succeeded.")
    model_sha256: str | Absent = Field(None, description="Of the model's files; there once it has succeeded.")
    version: str | Absent = Field(None, description="Of the worker that made it; there once it has succeeded.")
    error: str | Absent = Field(None, description="Why it failed.")
    error_type: str | Absent = Field(None, description="The same for programs: a problem's type.")

    @classmethod
    def of(cls, view: JobView, pictures: Sequence[bytes] | None = None, root_path: str = "") -> Self:
        """``pictures`` put the images' bytes into the answer; without them it has their addresses."""
        job_url = f"{root_path}/jobs/{view.job.id}"
        infos = view.result.images if view.result else ()
        files: Sequence[bytes | None] = [None] * len(infos) if pictures is None else pictures
        return cls(
            id=view.job.id,
            model=view.job.model,
            prompt=view.job.prompt or None,
            label=view.job.label,
            images=[ImageAnswer.of(view.job, job_url, info, data) for info, data in zip(infos, files, strict=True)],
            parameters=UsedParameters(**parameters_of(view.job.parameters)),
            edit=EditAnswer.of(view.job.edit),
            created_ms=view.job.created_ms,
            timings=view.result.timings if view.result else None,
            warnings=list(view.result.warnings) if view.result else None,
            dtype=(view.result.dtype or None) if view.result else None,
            backend=(view.result.backend or None) if view.result else None,
            model_sha256=(view.result.model_sha256 or None) if view.result else None,
            version=(view.result.version or None) if view.result else None,
            error=for_clients(str(view.failure)) if view.failure else None,
            error_type=urn(type(view.failure.error())) if view.failure else None,
            **view.model_dump(include={"status", "evaluations", "evaluation", "committed", "attempts"}),
            **view.model_dump(include={"started_ms", "finished_ms"}),
        )


TAKEN: Mapping[Condition, tuple[str, ...]] = {
    Condition.TEXT: ("prompt", "negative_prompt", "truncate_prompt"),
    Condition.LABEL: ("label",),
    Condition.NONE: (),
}
"""Request fields by what a model draws from; the first is needed, and no other kind takes them."""
EDITS = ("image", "mask", "strength", "composite", "pinned", "image_sha256", "mask_sha256")
"""Request fields about what a picture begins with."""
OF_GUIDANCE = ("guidance_scale", "guidance_schedule", "negative_prompt")


def fields_of(model: ModelInfo) -> tuple[str, ...]:
    """The fields of a request that ``model`` takes, in the request's order."""
    others = {name for names in TAKEN.values() for name in names} - {*TAKEN[model.condition]}
    offered = [SAMPLERS[name] for name in model.samplers if name in SAMPLERS]
    needs_sampler = {name for row in SAMPLERS.values() for name in (*row.fields, *row.own)}
    others |= needs_sampler - {name for row in offered for name in (*row.fields, *row.own)}
    others |= set() if model.guidance else {*OF_GUIDANCE}
    others |= set() if model.edits else {*EDITS}
    return tuple(name for name in GenerateRequest.model_fields if name not in others)


class Health(Answer):
    """What a probe is told."""

    status: Literal["alive", "ready"]
