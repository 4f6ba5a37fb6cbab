"""Errors, their slugs, and what HTTP makes of them: one tree, one table."""

import ast
import re
from pathlib import Path

import pytest

from service import errors
from service.errors import VqdError, subclasses
from service.gateway import problems
from service.gateway.problems import STATUS_AND_TITLE, InvalidFields, status_and_title

SERVICE = Path(errors.__file__).parent
TREE = [kind for kind in subclasses(VqdError) if kind.__module__ == errors.__name__]
SPEAK_HTTP = [
    SERVICE / "errors.py",
    *SERVICE.glob("client/**/*.py"),
    *SERVICE.glob("queue/*.py"),
    *SERVICE.glob("gateway/**/*.py"),
]


@pytest.mark.parametrize("kind", TREE)
def test_the_tree_is_drawn_as_it_is(kind: type[VqdError]) -> None:
    slug = vars(kind).get("slug", "")
    assert re.search(rf"^[ │├└─]*{kind.__name__} +{slug}( |$)", errors.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize("kind", TREE)
def test_an_error_with_a_slug_has_its_own_entry(kind: type[VqdError]) -> None:
    assert (kind in STATUS_AND_TITLE) == ("slug" in vars(kind))


def test_slugs_are_unique() -> None:
    assert len({kind.slug for kind in STATUS_AND_TITLE}) == len(STATUS_AND_TITLE)


def test_an_error_without_an_entry_has_its_parents() -> None:
    assert status_and_title(errors.TritonTimeout) == STATUS_AND_TITLE[errors.TritonUnavailable]
    assert status_and_title(errors.RetryLater) == STATUS_AND_TITLE[VqdError]
    assert status_and_title(InvalidFields) == STATUS_AND_TITLE[errors.InvalidRequest]


@pytest.mark.parametrize("path", SPEAK_HTTP, ids=lambda path: str(path.relative_to(SERVICE)))
def test_only_the_table_knows_their_statuses(path: Path) -> None:
    statuses = {status for status, _ in STATUS_AND_TITLE.values()}
    constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    found = statuses & {value for value in constants if isinstance(value, int)}
    assert found == (statuses if path == Path(problems.__file__) else set())
