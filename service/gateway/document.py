"""The OpenAPI document: what FastAPI makes of the routes, and what it cannot know."""

import copy
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from service.gateway.access.described import with_keys
from service.gateway.openai.request import EditRequest, ImagesRequest
from service.gateway.previews import Event
from service.gateway.problems import SCHEMA_REF, Problem
from service.gateway.schemas import TAKEN, GenerateRequest, fields_of
from service.serving import ModelInfo

HEADERS = {
    "Location": "Where the job is.",
    "Retry-After": "Seconds until it is worth asking again.",
    "X-Vqd-Job-Id": "The job.",
    "Content-Disposition": "With a picture: a name for its file.",
    "X-Vqd-Model": "With a picture: the model that made it.",
    "X-Vqd-Image-Index": "With a picture: which picture of the seed it is.",
    "X-Vqd-Seed": "With a picture: its seed.",
    "X-Vqd-Tokens-Sha256": "With a picture: SHA-256 of its token grid.",
    "X-Vqd-Parameters": "With a picture: the parameters as used, in JSON.",
    "X-Vqd-Timings": "With a picture: how long it took, in JSON.",
    "X-Vqd-Dtype": "With a picture: what the network computed in.",
    "X-Vqd-Backend": "With a picture: what the network was exported for.",
    "X-Vqd-Warnings": "With a picture: what of the prompts is not drawn as it is written, as a list in JSON.",
    "Preference-Applied": "What was made of `Prefer` (RFC 7240).",
    "Idempotent-Replayed": "`true` when the `Idempotency-Key` was known.",
    "RateLimit-Policy": "The limits of the API key: passes of the network a minute, and jobs at once.",
    "RateLimit": "What is left of the passes, and in how many seconds all of them are.",
}


def headers_of(*names: str) -> dict[str, Any]:
    """The description of these headers of an answer."""
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}


def links_of(*operations: str, **parameters: str) -> dict[str, Any]:
    """The operations that take the id of the job in an answer, and ``parameters``."""
    taken = {"job_id": "$response.body#/id", **parameters}
    return {operation: {"operationId": operation, "parameters": taken} for operation in operations}


class WithoutNulls(GenerateJsonSchema):
    """As FastAPI does it: a default of None says only that a field may be absent."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        with_default = super().default_schema(schema)
        return {key: value for key, value in with_default.items() if (key, value) != ("default", None)}


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's, with the schemas that no route returns as JSON: a problem's, and that of an event in a stream."""
    whole = FastAPI.openapi(app)  # which keeps it
    listed = whole["components"]["schemas"]
    if Problem.__name__ not in listed:
        unlisted: list[Any] = [(Problem, "serialization"), (Event, "serialization")]
        _, schemas = models_json_schema(unlisted, ref_template=SCHEMA_REF, schema_generator=WithoutNulls)
        whole["components"]["schemas"] = schemas["$defs"] | listed
    return with_keys(whole)


def with_served(whole: dict[str, Any], models: Sequence[ModelInfo], root_path: str = "") -> dict[str, Any]:
    """A copy that says of a request what the served models take, and need, and under which prefix all of it is."""
    whole = copy.deepcopy(whole)
    if root_path:
        whole["servers"] = [{"url": root_path}]
    if models:
        for kind in (GenerateRequest, ImagesRequest, EditRequest):
            request = whole["components"]["schemas"][kind.__name__]
            limit_fields(request, models)
            limit_numbers(request["properties"], models)
            limit_samplers(request["properties"], models)
    return whole


def limit_fields(request: dict[str, Any], models: Sequence[ModelInfo]) -> None:
    """Leave out what none of them takes; require what they draw from, if that is the same for all."""
    for name in {*GenerateRequest.model_fields} - {name for model in models for name in fields_of(model)}:
        del request["properties"][name]
    kinds = {model.condition for model in models}
    needed = TAKEN[kinds.pop()][:1] if len(kinds) == 1 else ()
    for name in needed:
        request["required"] = [*request.get("required", ()), name]
        field = request["properties"][name]
        field["anyOf"] = [kind for kind in field["anyOf"] if kind != {"type": "null"}]


def limit_samplers(properties: dict[str, Any], models: Sequence[ModelInfo]) -> None:
    """Those that some of them offers."""
    named = properties["sampler"]["anyOf"][0]
    named["enum"] = [name for name in named["enum"] if any(name in model.samplers for model in models)]


def limit_numbers(properties: dict[str, Any], models: Sequence[ModelInfo]) -> None:
    """The range of each number; of several models, the widest."""
    numbers = {name: field["anyOf"][0] for name, field in properties.items() if "anyOf" in field}
    # A worker of another version may have ranges of what we do not know.
    ranges = [item for model in models for item in model.ranges.items() if item[0] in numbers]
    for field in {name for name, _ in ranges}:
        number = numbers[field]
        number["minimum"] = min(limits.minimum for name, limits in ranges if name == field)
        most = max(limits.maximum for name, limits in ranges if name == field)
        number["maximum"] = min(most, number.get("maximum", most))
    if "guidance_schedule" in properties and "guidance_scale" in numbers:
        (listed,) = (kind for kind in properties["guidance_schedule"]["anyOf"] if kind.get("type") == "array")
        listed["items"] = copy.deepcopy(numbers["guidance_scale"])
