"""A request as a form with files (multipart/form-data): the same fields as in JSON, and pictures as they are."""

from collections import Counter
from typing import Any

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.gateway.pictures.upload import Upload
from service.gateway.problems import FieldError, InvalidFields

MEDIA_TYPE = "multipart/form-data"
MOST_FIELDS, MOST_FILES = 100, 20
"""More files than any client sends, so that one too many is refused by its name."""
TEXTS = ("prompt", "negative_prompt", "model", "image_sha256", "mask_sha256", "user", "safety_identifier")
"""Fields that are text whatever it looks like; others are JSON if they can be."""
OF_A_LIST = "[]"
"""What some clients put behind the name of a field that may be given several times elsewhere."""
FORM = "multipart/form-data as RFC 7578 has it, each field once"
ONCE = {"image": "one picture: several cannot be made into one here"}
"""What is allowed of a field that comes several times, where OpenAI takes that."""


class InMemory(MultiPartParser):
    """Starlette's, without files on disk: how large a body may be is bounded elsewhere."""

    spool_max_size = 2**40


async def read_form(request: Request, most_text: int) -> dict[str, Any]:
    """The fields of a form; no single text may have more bytes than ``most_text``. Raises InvalidFields."""
    parser = InMemory(
        request.headers, request.stream(), max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=most_text
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidFields([FieldError("body", error.message, FORM)]) from None
    named = [(name.removesuffix(OF_A_LIST), part) for name, part in form.multi_items() if not is_empty(part)]
    parts = [(name, await value_of(name, part)) for name, part in named]
    counts = Counter(name for name, _ in parts)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InvalidFields(
            [FieldError(name, "is given more than once", ONCE.get(name, "each field once")) for name in twice]
        )
    return dict(parts)


def is_empty(part: UploadFile | str) -> bool:
    """What browsers send of a field that nobody filled in."""
    return part == "" if isinstance(part, str) else not (part.filename or part.size)


async def value_of(name: str, part: UploadFile | str) -> object:
    if isinstance(part, UploadFile):
        try:
            return Upload(await part.read())
        finally:
            await part.close()
    if name in TEXTS:
        return part
    try:
        return from_json(part)
    except ValueError:
        return part
