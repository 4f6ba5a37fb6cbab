"""README and the pages of docs/: links lead somewhere, and what they say of commands, files and rooms is so."""

import ast
import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli.app import run
from service.models.card import REFERENCE, load_card

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "k8s/README.md", REFERENCE / "README.md", *DOCS]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the licence's text as it is published."""

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`]+)`")
OUR_PATH = re.compile(r"(?:service|tests|docs|k8s|model_repository)/\S+")
COMMAND = re.compile(r"(?:^|&& |; )(?:\.venv/bin/)?(vqd|make) ([a-z][\w-]*)(?: ([a-z]+))?", re.MULTILINE)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """What stands between backticks in a page's text."""
    return SPAN.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(page: str, width: int) -> Iterator[list[str]]:
    """The rows of a page's tables that have so many columns."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == width:
            yield cells


def code(page: Path) -> str:
    """What a page has in code: its blocks, and its spans in lines of their own."""
    return "\n".join([*FENCE.findall(page.read_text()), *spans(page)])


def sources() -> dict[str, list[ast.AST]]:
    """The nodes of our code, by room."""
    rooms: dict[str, list[ast.AST]] = {}
    for path in sorted((ROOT / "service").rglob("*.py")):
        room = path.relative_to(ROOT / "service").with_suffix("").parts[0]
        rooms.setdefault(room, []).extend(ast.walk(ast.parse(path.read_text())))
    return rooms


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text()
    assert len(text.split()) <= 1500
    assert {f"docs/{page.name}" for page in DOCS} <= set(LINK.findall(re.sub(r"#[\w-]+\)", ")", text)))


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    for span in spans(page):
        if OUR_PATH.fullmatch(span):
            assert (ROOT / span).exists(), span


@every_page
def test_commands_that_are_named_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for program, *words in sorted(set(COMMAND.findall(code(page)))):
        if program == "make":
            assert words[0] in targets
            continue
        monkeypatch.setattr(sys, "argv", ["vqd", *filter(None, words), "--help"])
        with pytest.raises(SystemExit) as end:
            run()
        assert end.value.code == 0, words


def test_things_are_where_the_architecture_page_says() -> None:
    rows = [row for row in tables(ARCHITECTURE, 3) if OUR_PATH.fullmatch(row[1].strip("`"))]
    assert len(rows) > 20
    for what, path, name in rows:
        assert name.strip("`") in (ROOT / path.strip("`")).read_text(), what


def test_rooms_import_what_the_architecture_page_allows() -> None:
    section = ARCHITECTURE.partition("## What each room")[2].partition("\n## ")[0]
    allowed = {room.strip("`"): others.split(", ") for room, _, others in tables(section, 3) if room.startswith("`")}
    rooms = sources()
    assert set(allowed) == set(rooms) - {"__init__"}
    for room, others in allowed.items():
        imported = {node.module for node in rooms[room] if isinstance(node, ast.ImportFrom) and node.module}
        ours = {name.split(".")[1] for name in imported if name.startswith("service.")}
        assert "anything" in others or ours <= {room, "condition", "errors", "messages", "serving", *others}, room


def test_the_licence_is_whole_and_declared() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE", "NOTICE"])


def test_the_notice_has_every_attribution_of_the_bundled_model() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for attribution in load_card(REFERENCE).attributions:
        assert attribution in notice
