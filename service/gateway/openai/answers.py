"""What OpenAI's clients get for a job, with ours beside theirs."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field

from service.gateway.openai.rendering import Rendering
from service.gateway.problems import Absent
from service.gateway.schemas import Answer, ImageAnswer, JobAnswer, UsedParameters
from service.messages import ImageFormat, JobView
from service.serving import ModelInfo

QUALITY: Literal["auto"] = "auto"
BACKGROUND: Literal["opaque"] = "opaque"
BARE = {"b64_json": None, "url": None}
"""A picture that is yet to be shown in one of the two ways."""


class InputTokens(Answer):
    text_tokens: int
    image_tokens: int


class Usage(Answer):
    """What was really read and made: word pieces of the prompts, and tokens of the pictures."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, text: int, image: int, output: int) -> Self:
        return cls(
            input_tokens=text + image,
            input_tokens_details=InputTokens(text_tokens=text, image_tokens=image),
            output_tokens=output,
            total_tokens=text + image + output,
        )


def usage_of(view: JobView, model: ModelInfo, images: range) -> Usage | None:
    """Of some of a job's pictures; None where its worker, of an older version, has not said what it read.

    Prompts, and a picture to begin with, are read once: for the first one.
    """
    text = view.result.text_tokens if view.result else None
    if text is None:
        return None
    edit = view.job.edit
    image = model.tokens if edit and edit.image_sha256 else 0
    read = (text, image) if 0 in images else (0, 0)
    return Usage.of(*read, len(images) * model.tokens)


class Made(Answer):
    """What an answer and an event say of how a picture was made."""

    model: str = Field(description="The one that made it, whatever name was asked for.")
    background: Literal["opaque"] = BACKGROUND
    output_format: ImageFormat
    quality: Literal["auto"] = QUALITY
    size: str = Field(description="Of the files, as WIDTHxHEIGHT.", examples=["1024x1024"])
    model_size: str | Absent = Field(None, description="As the model made it, if it was scaled.")
    scaling: str | Absent = Field(None, description="How: `lanczos` or `nearest`.")
    usage: Usage | Absent = Field(None, description="Absent if the worker does not say what it read.")


def made(rendering: Rendering, model: ModelInfo, usage: Usage | None) -> dict[str, Any]:
    """The fields of ``Made``."""
    scaled = rendering.size.times > 1
    return {
        "model": model.name,
        "output_format": rendering.format,
        "size": str(rendering.size),
        "model_size": f"{model.image_width}x{model.image_height}" if scaled else None,
        "scaling": rendering.scaling if scaled else None,
        "usage": usage,
    }


class Picture(ImageAnswer):
    revised_prompt: str | Absent = Field(None, description="What was drawn; no prompt is revised here.")


class ImagesAnswer(Made):
    """OpenAI's fields, and what else there is to know of the job."""

    id: str = Field(description="The job: `GET /jobs/{id}`.")
    created: int = Field(description="When they were finished, in seconds since 1970.")
    data: list[Picture]
    parameters: UsedParameters
    warnings: list[str] | Absent = Field(None, description="What was not drawn as it was asked for.")

    @classmethod
    def of(cls, view: JobView, model: ModelInfo, rendering: Rendering, shown: Sequence[dict[str, str]]) -> Self:
        """``shown``: of each picture its ``b64_json`` or its ``url``."""
        job = JobAnswer.of(view)
        prompt = view.job.prompt or None
        pictures = [
            Picture(**{**image.model_dump(), **BARE, **one, "revised_prompt": prompt})
            for image, one in zip(job.images, shown, strict=True)
        ]
        return cls(
            id=job.id,
            created=created_s(view),
            data=pictures,
            parameters=job.parameters,
            warnings=job.warnings or None,
            **made(rendering, model, usage_of(view, model, range(len(pictures)))),
        )


def created_s(view: JobView) -> int:
    return (view.finished_ms or view.job.created_ms) // 1000


def in_base64(file: bytes) -> str:
    return b64encode(file).decode()
