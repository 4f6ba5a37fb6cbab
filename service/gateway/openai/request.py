"""What OpenAI's clients ask for, beside what ``/generate`` takes, and which values mean something here."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from service.errors import NotFound
from service.gateway.directory import Directory
from service.gateway.openai.sizes import SIZE
from service.gateway.pictures.upload import Upload
from service.gateway.problems import FieldError, InvalidFields
from service.gateway.schemas import GenerateRequest, Named, whole
from service.messages import ImageFormat
from service.queue.previews import PreviewsFor
from service.serving import ModelInfo

MOST_IMAGES = 10
LOSSLESS = 100
"""The output_compression that loses nothing, which any format can have."""
THEIRS = ("dall-e-", "gpt-image-", "chatgpt-image-")
"""How the models of OpenAI itself are called: clients send such a name when nobody has told them another."""
ALLOWED = {
    "n": f"a whole number from 1 to {MOST_IMAGES}",
    "size": "auto, the model's own, or a whole multiple of that, as WIDTHxHEIGHT",
    "quality": "auto, standard, or nothing: there is one quality",
    "background": "auto, opaque, or nothing: no picture has another",
    "moderation": "auto, or nothing: there is none",
    "style": "nothing: say it in the prompt",
    "output_format": "one of " + ", ".join(ImageFormat),
    "output_compression": "a whole number from 0 to 100, with jpeg or webp; 100, or nothing, with png",
    "response_format": "url or b64_json; b64_json, or nothing, with stream",
    "user": "text of up to 512 characters",
    "safety_identifier": "text of up to 512 characters",
    "stream": "true or false",
    "partial_images": "a whole number from 0 to 3, with stream",
    "input_fidelity": "low, or nothing: say strength, from 0 to 1",
    "format": "the same as output_format, or nothing",
}
"""For error messages."""

Percent = Annotated[int, Field(ge=0, le=100), BeforeValidator(whole)]
Partials = Annotated[int, Field(ge=0, le=3), BeforeValidator(whole)]
Images = Annotated[int, Field(ge=1, le=MOST_IMAGES), BeforeValidator(whole)]
Whose = Annotated[str, Field(max_length=512)]


class ImagesRequest(GenerateRequest):
    """What `POST /v1/images/generations` of OpenAI takes, and beside it every field of `POST /generate`."""

    n: Images | None = Field(None, description="How many pictures.")
    size: Annotated[str, Field(pattern=SIZE.pattern)] | None = Field(
        None, description="`auto`, the model's own, or a whole multiple of that, to which the picture is scaled."
    )
    quality: Literal["auto", "standard"] | None = Field(None, description="There is one.")
    background: Literal["auto", "opaque"] | None = Field(None, description="Every picture is opaque.")
    moderation: Literal["auto"] | None = Field(None, description="There is none.")
    style: None = Field(None, description="Say it in the prompt.")
    output_format: Annotated[ImageFormat, Named] | None = Field(None, description="The same as `format`.")
    output_compression: Percent | None = Field(None, description="Quality of a JPEG or WebP file; 100 is the best.")
    response_format: Literal["url", "b64_json"] | None = Field(None, description="`b64_json` unless given.")
    user: Whose | None = Field(None, description="Who asks, for OpenAI; nothing here depends on it.")
    safety_identifier: Whose | None = Field(None, description="The newer name of `user`.")
    stream: bool | None = Field(None, description="Answer with Server-Sent Events.")
    partial_images: Partials | None = Field(
        None, description="With `stream`: at most so many of each picture on its way there."
    )

    @property
    def previews(self) -> PreviewsFor | None:
        return super().previews or (PreviewsFor.ASKERS if self.partial_images else None)

    def checked(self) -> Self:
        """Itself. Raises InvalidFields for fields that contradict each other."""
        if errors := list(self.contradictions()):
            raise InvalidFields(errors)
        return self

    def contradictions(self) -> Iterator[FieldError]:
        if self.format and self.output_format and self.format != self.output_format:
            yield FieldError("format", "is not the same as output_format", ALLOWED["format"])
        if self.partial_images and not self.stream:
            yield FieldError("partial_images", "needs stream: true", ALLOWED["partial_images"])
        if self.stream and self.response_format == "url":
            yield FieldError("response_format", "a stream has the pictures in it", ALLOWED["response_format"])

    def quality_for(self, image_format: ImageFormat) -> int | None:
        """The encoder's quality that is asked for; None: its usual one. Raises InvalidFields."""
        if image_format is not ImageFormat.PNG:
            return self.output_compression
        if self.output_compression in (None, LOSSLESS):
            return None
        why = f"{self.output_compression} loses something, and png does not"
        raise InvalidFields([FieldError("output_compression", why, ALLOWED["output_compression"])])


class EditRequest(ImagesRequest):
    """What `POST /v1/images/edits` of OpenAI takes, as a form; ours beside it."""

    image: Upload = Field(repr=False, description="A PNG, JPEG or WebP file, which may also be called `image[]`.")
    mask: Upload | None = Field(None, repr=False, description="A PNG file: what is transparent is to change.")
    input_fidelity: Literal["low"] | None = Field(None, description="Say `strength`.")


async def pick(directory: Directory, name: str | None) -> ModelInfo:
    """As ``Directory.pick``; a name of OpenAI's own models stands for the only served one."""
    try:
        return await directory.pick(name)
    except NotFound:
        served = await directory.models()
        if name is None or not name.startswith(THEIRS) or len(served) != 1:
            raise
        return next(iter(served.values()))
