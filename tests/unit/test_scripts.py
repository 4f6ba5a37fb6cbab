"""Lua scripts: what Python gives by name is what Lua has by name."""

import re

import pytest

from service.messages import Priority
from service.queue.scripts import ALL, ENQUEUE, FINISH, READ, Script
from service.queue.store import job_keys


def test_arguments_go_to_their_places_whatever_their_order() -> None:
    script = Script("s", keys=("a", "b"), arguments=("x", "y"), rest="more")
    call = script.call({"b": "2", "a": "1"}, {"y": 4, "x": 3}, rest=[5, 6])
    assert (call.keys, call.arguments) == (["1", "2"], [3, 4, 5, 6])


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [({"a": "1", "c": "3"}, {"x": 1}), ({"b": "2"}, {"x": 1}), ({"a": "1"}, {"y": 1}), ({"a": "1"}, {"x": 1, "z": 2})],
)
def test_a_name_that_is_wrong_or_missing_before_another_is_refused(
    keys: dict[str, str], arguments: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match=r"s\.lua takes "):
        Script("s", keys=("a", "b"), arguments=("x", "y")).call(keys, arguments)


def test_what_is_left_out_stands_last() -> None:
    call = Script("s", keys=("a", "b"), arguments=("x", "y")).call({"a": "1"}, {"x": 1})
    assert (call.keys, call.arguments) == (["1"], [1])


def test_lua_has_the_same_names() -> None:
    source = FINISH.source()
    assert "local TURNS = KEYS[8]\nlocal IMAGES = KEYS[9]" in source
    assert "local result = ARGV[7]\nlocal bytes = ARGV[8]\nlocal files = {unpack(ARGV, 9)}" in source
    assert "local BELL = KEYS[2]\nlocal LANES = {unpack(KEYS, 3)}" in READ.source()


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_no_script_counts_its_arguments_itself(script: Script) -> None:
    """A place in KEYS or ARGV is in the declaration alone."""
    declared = len(script.keys) + len(script.arguments) + bool(script.rest) + bool(script.rest_keys)
    assert len(re.findall(r"\b(KEYS|ARGV)\b", script.source())) == declared
    for key in script.keys:
        assert len(re.findall(rf"\b{key.upper()}\b", script.source())) > 1 or script.common, f"{key} is not used"


def test_the_keys_of_a_job_are_those_of_its_scripts() -> None:
    assert tuple(job_keys("j", "m", Priority.BATCH, "s")) == ENQUEUE.keys[:8]
