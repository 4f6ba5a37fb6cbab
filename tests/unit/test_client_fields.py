"""The fields that Python's client offers are those of the service, and so are their values."""

import array
import inspect
import io
import json
import pickle
from typing import Any, get_type_hints

import pytest
from PIL import Image
from pydantic import TypeAdapter

import vqd
from service.client.fields import PICTURES, SHOWN, Fields, Options, body_of, label_from, of_edit
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import CHOICES, SAMPLERS
from service.gateway.schemas import GenerateRequest
from service.messages import ImageFormat, Priority, PurityForm

WORDS = {
    "guidance_schedule": {*GUIDANCE_SCHEDULES},
    "sampler": {*SAMPLERS},
    "masking_schedule": {*CHOICES["masking_schedule"]},
    "purity_form": {*PurityForm},
    "format": {*ImageFormat},
    "priority": {*Priority},
}
"""Fields of a few words."""


def kinds(schema: Any) -> set[str]:
    """What a JSON schema takes, in its own words for types."""
    if "$ref" in schema:
        return {"string"}  # an enumeration
    if "anyOf" in schema:
        return {kind for part in schema["anyOf"] for kind in kinds(part)} - {"null"}
    return {schema["type"]}


def words(schema: Any) -> set[str]:
    found = {*schema.get("enum", ())}
    return found.union(*(words(part) for part in schema.get("anyOf", ())))


def test_they_are_the_fields_of_a_request() -> None:
    assert {"prompt", *get_type_hints(Fields)} == {*GenerateRequest.model_fields}
    assert {*get_type_hints(Fields)} == {*get_type_hints(Options), *PICTURES}


@pytest.mark.parametrize("name", get_type_hints(Options))
def test_a_field_has_the_service_s_type(name: str) -> None:
    ours = TypeAdapter(get_type_hints(Options)[name]).json_schema()
    assert kinds(ours) == kinds(GenerateRequest.model_json_schema()["properties"][name])
    assert words(ours) == WORDS.get(name, set())


@pytest.mark.parametrize("method", ["generate", "edit", "stream", "submit"])
def test_both_clients_take_the_same(method: str) -> None:
    blocking, awaited = (inspect.signature(getattr(kind, method)) for kind in (vqd.Client, vqd.AsyncClient))
    assert list(blocking.parameters.values()) == list(awaited.parameters.values())
    assert inspect.iscoroutinefunction(getattr(vqd.AsyncClient, method)) is (method != "stream")


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_both_have_the_same_names() -> None:
    assert public(vqd.Client) == public(vqd.AsyncClient)
    assert public(vqd.Job) == public(vqd.AsyncJob)
    assert public(vqd.Events) == public(vqd.AsyncEvents)


def test_what_is_none_is_not_sent() -> None:
    sent = json.loads(body_of({"prompt": None, "image": None, "seed": 0, "metadata": False, "n": 2}))
    assert sent == {"seed": 0, "metadata": False, "n": 2}


def test_a_class_is_written_by_its_number_or_its_name() -> None:
    assert [label_from(text) for text in ("7", "emu", "²", "")] == [7, "emu", "²", ""]
    assert label_from("9" * 5000) == "9" * 5000, "no number of a class"


def test_any_sequence_is_a_list() -> None:
    sent = json.loads(body_of({"pinned": range(3), "guidance_schedule": (1.5, 2)}))
    assert sent == {"pinned": [0, 1, 2], "guidance_schedule": [1.5, 2]}


def closed() -> Image.Image:
    picture = Image.new("RGB", (8, 8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    opened = Image.open(file)
    opened.close()
    return opened


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed", {1, 2}, "set cannot be sent"),
        ("prompt", b"red", "bytes cannot be sent"),
        ("pinned", CIRCLE, "list cannot be sent: Circular"),
        ("pinned", [memoryview(b"")], "list cannot be sent: JSON has no memoryview"),
        ("image", io.BytesIO(), "a path, .* is wanted, not BytesIO"),
        ("mask", array.array("B"), "a path, .* is wanted, not array"),
        ("image", "a\0b", "a\0b cannot be read: embedded null byte"),
        ("image", closed(), "this picture cannot be read: Operation on closed image"),
        ("mask", Image.new("RGB", (0, 0)), "this picture cannot be read: cannot write empty image"),
        ("image", "A" * 5000, f"A{{{SHOWN}}}… cannot be read: File name too long"),
    ],
)
def test_what_cannot_be_sent_is_named(name: str, value: object, says: str) -> None:
    with pytest.raises(vqd.InvalidRequest, match=f"^{name}: {says}") as caught:
        body_of({name: value})
    assert caught.value.field == name


def test_an_edit_of_nothing_is_none() -> None:
    with pytest.raises(vqd.InvalidRequest, match=r"^image: a path, .* is wanted, not None$"):
        of_edit(None, None, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [vqd.InvalidRequest("n", "is out of range"), vqd.QuotaExceeded("slow down", 40), vqd.StillRunning("not done")],
)
def test_an_error_of_another_process_is_the_same_error(error: vqd.VqdError) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))
