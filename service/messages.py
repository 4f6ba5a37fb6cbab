"""The frozen records that gateway and worker share. JSON in Redis; bytes (images, grids) travel beside them."""

from enum import StrEnum
from operator import not_
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import InferenceFailed, InvalidRequest, VqdError, by_slug

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON client reads back exactly."""


class Record(BaseModel):
    """Fields that a reader does not know are skipped: in a rollout the writer may be of the next version."""

    # What a record holds may be a prompt, and what is wrong with a record may end up in a log.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


def complaints(error: ValidationError) -> str:
    """What is wrong with a record, field by field, without the values."""
    return "; ".join(": ".join([*filter(None, [".".join(map(str, e["loc"]))]), e["msg"]]) for e in error.errors())


class PurityForm(StrEnum):
    LINEAR = "linear"
    POWER = "power"


class ImageFormat(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        return f"image/{self.value}"


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class Parameters(Record):
    """Sampling parameters as actually used: every default filled in. ``tokens_per_step`` is None for ancestral."""

    guidance_scale: float
    purity_r: float
    purity_form: PurityForm
    tokens_per_step: int | None
    steps: int
    sampler: str
    """One of ``diffusion.samplers.SAMPLERS``."""
    truncation_rate: float
    temperature: float
    final_resample: bool
    guidance_schedule: str | tuple[float, ...] = "constant"
    """One of ``diffusion.guidance_schedule.GUIDANCE_SCHEDULES``, or the guidance scale of each evaluation."""
    masking_schedule: str = "cosine"
    """One of ``diffusion.walks.MASKING_SCHEDULES``."""
    seed: int
    n: int
    format: ImageFormat
    image_index: int = Field(default=0, exclude_if=not_)
    """Which picture of the seed is the first one. Written only where it says something: a worker of the version before
    refuses what it does not know, and would draw another picture."""

    @property
    def images(self) -> range:
        """The pictures of the seed that are asked for."""
        return range(self.image_index, self.image_index + self.n)


class Edit(Record):
    """What a job's pictures begin with. ``strength``: the share of what may change that is masked at first;
    ``changes``: which positions may, packed by ``diffusion.start``, None: all; ``pinned``: the code of each, or -1;
    ``composite``: put back what the mask keeps. The pixels travel beside the job."""

    strength: float = 1.0
    changes: str | None = None
    pinned: tuple[int, ...] | None = None
    composite: bool = False
    image_sha256: str | None = None
    mask_sha256: str | None = None
    warnings: tuple[str, ...] = ()


class Job(Record):
    """One accepted request. Image i has the noise of (seed, image_index + i). Times are Redis TIME, milliseconds."""

    id: str
    model: str
    prompt: str
    """Empty where the model takes none."""
    negative_prompt: str | None
    parameters: Parameters
    priority: Priority
    truncate_prompt: bool = False
    """Whether prompts that are too long for the model are cut, and not refused."""
    created_ms: int = 0
    deadline_ms: int | None = None
    """Milliseconds after ``created_ms`` by which the job must be finished; None: no deadline."""
    label: int | None = None  # for a model that is conditioned on classes
    request_id: str | None = None  # of the HTTP request that made the job, for the log
    traceparent: str | None = None
    """W3C trace context of that request's span; None: not traced."""
    webhook_url: str = Field(default="", exclude=True, repr=False)  # kept beside the record: workers need not know it
    # The rest is written only where it says something: workers of the version before refuse what they do not know.
    metadata: bool = Field(default=True, exclude_if=bool)
    """Whether the files say what they are."""
    edit: Edit | None = Field(default=None, exclude_if=not_)
    adapt: bool = Field(default=False, exclude_if=not_)
    """Whether it may have fewer evaluations to meet its deadline."""


class RowState(Record):
    """One image in progress: evaluations done and the grid after them (little-endian int32, base64)."""

    evaluation: int
    tokens: str


class Checkpoint(Record):
    """``model``: the fingerprint of the export that made the grids; another one would go on with another picture."""

    rows: tuple[RowState, ...]
    model: str = ""


class Failure(Record):
    """Why a job has no pictures. ``kind`` is a slug of errors.py; ``field``: the request field that caused it."""

    kind: str
    message: str
    field: str | None = None

    @classmethod
    def of(cls, error: VqdError) -> Self:
        if isinstance(error, InvalidRequest):
            return cls(kind=error.slug, message=error.message, field=error.field)
        return cls(kind=error.slug, message=str(error))

    def error(self) -> VqdError:
        """What ``of`` was given. What names a request field is the client's own mistake; an unknown kind is ours."""
        if self.field:
            return InvalidRequest(self.field, self.message)
        kind = by_slug(self.kind) or InferenceFailed
        return InferenceFailed(self.message) if issubclass(kind, InvalidRequest) else kind(self.message)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class Timings(Record):
    """Seconds. ``steps_s`` is the sum over the calls that carried this job; ``total_s`` runs from accepted to done.

    ``first_s``: from accepted until its first evaluation began. ``first_call``: among the step calls that its worker
    began after the job was accepted, the first that carried it; 1 is the very next one. None where nobody knows.
    """

    queue_s: float
    encode_s: float
    steps_s: float
    decode_s: float
    total_s: float
    first_s: float | None = None
    first_call: int | None = None


class Stored(Record):
    """A file that S3 storage has, under that name in the bucket."""

    key: str
    size: int


class ImageInfo(Record):
    """``index``: the place in its job; ``stored``: where its file is, None: in Redis."""

    index: int
    seed: int
    tokens_sha256: str
    stored: Stored | None = Field(default=None, exclude_if=not_)


class Result(Record):
    """What a finished job leaves, beside the encoded images."""

    images: tuple[ImageInfo, ...]
    evaluations: int
    evaluations_repeated: int
    timings: Timings
    started_again: bool = False
    """Its checkpoint was of another model, or could not be read, so that the job began anew."""
    warnings: tuple[str, ...] = ()
    """What of the prompts was not drawn as it is written, in sentences for the client."""
    text_tokens: int | None = None
    """Word pieces that the text encoder has read, of both prompts; None from a worker that does not say."""
    dtype: str = ""
    backend: str = ""
    """The model's, since a seed gives another picture in another one; empty from a worker that does not say."""
    model_sha256: str = ""
    version: str = ""
    """Of the model's weights and configuration, and of the worker, likewise."""


class Event(Record):
    """Progress of a job. ``evaluation`` counts over all its images and is the event's id; it never goes back."""

    evaluation: int
    evaluations: int
    committed: float
    """Fraction of all tokens that have a code."""
    status: Status
    detail: str | None = None


class JobView(Record):
    """A job as the gateway reads it. ``owner``: an API key's id or empty; ``previews``: its request asked for them."""

    job: Job
    owner: str = ""
    status: Status
    epoch: int
    attempts: int
    evaluation: int
    evaluations: int
    committed: float
    started_ms: int | None
    finished_ms: int | None
    failure: Failure | None
    result: Result | None
    previews: bool = False
