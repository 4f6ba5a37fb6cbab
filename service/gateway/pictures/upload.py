"""A picture as a client sends it: base64 in JSON, or a file of a form."""

import hashlib
import re
from base64 import b64decode
from functools import cached_property
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

DATA_URL = re.compile(r"data:[\w/+.-]*;base64,", re.ASCII)
SCHEMA: JsonSchemaValue = {"type": "string", "contentEncoding": "base64"}


class Upload:
    """One field's bytes until they are read. Nothing else may keep them: the answer may be a minute away.

    In dumps of a request it is its SHA-256.
    """

    def __init__(self, sent: str | bytes) -> None:
        self.sent = sent

    @classmethod
    def checked(cls, value: object) -> Self:
        """For pydantic. Raises PydanticCustomError for what is no picture at all."""
        upload = cls(value) if isinstance(value, str | bytes) else value
        if not isinstance(upload, cls):
            raise PydanticCustomError("picture", "a picture is a file in base64")
        upload.decode()
        return upload

    def decode(self) -> None:
        if isinstance(self.sent, bytes):
            return
        text = self.sent
        prefix = DATA_URL.match(text[:100])
        try:
            self.sent = b64decode("".join(text[prefix.end() if prefix else 0 :].split()), validate=True)
        except ValueError:
            raise PydanticCustomError("picture", "it is no base64") from None

    @property
    def data(self) -> bytes:
        assert isinstance(self.sent, bytes), "it was checked"
        return self.sent

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def release(self) -> None:
        """Keep only the hash."""
        self.sha256  # noqa: B018  it is known from now on
        self.sent = b""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dumped = core_schema.plain_serializer_function_ser_schema(lambda upload: upload.sha256)
        return core_schema.no_info_plain_validator_function(cls.checked, serialization=dumped)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(SCHEMA)
