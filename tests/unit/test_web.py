"""The files of the playground: small, complete, ours, and without a way for text to become code."""

import re
from pathlib import Path

import pytest

from service.gateway.access.headers import PLAYGROUND
from service.gateway.assets import ASSETS, WEB, address, page, version, version_of

OF_THE_DOCS = {"docs.html", "docs.js"}
FILES = sorted(path for path in WEB.iterdir() if path.name not in OF_THE_DOCS)
MODULES = [path for path in FILES if path.suffix == ".js" and path.name != "theme.js"]
INDEX = (WEB / "index.html").read_text()
MOST_BYTES = 100_000
MOST_LINES = 230
IMPORT = re.compile(r'^(?:import|export) (?:.* from )?"\./(.+?)";$', re.MULTILINE)
DANGEROUS = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc")

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def test_the_whole_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) <= MOST_BYTES


@every_file
def test_a_file_is_short_and_comes_from_us_alone(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert not [url for url in re.findall(r"https?://[^\"'`\s)]+", text) if url != "http://www.w3.org/2000/svg"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_says_what_it_is_for_and_builds_no_page_from_text(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("/** ")
    assert not DANGEROUS.findall(text)


def test_every_module_is_named_in_the_page_so_that_none_waits_for_another() -> None:
    preloaded = re.findall(r'<link rel="modulepreload" href="\{(.+?)\}">', INDEX)
    assert sorted(["main.js", *preloaded]) == [path.name for path in MODULES]
    imported = {name for path in MODULES for name in IMPORT.findall(path.read_text())}
    assert imported == {*preloaded}, "none is left over, none is missing"


def test_no_code_and_no_style_stands_in_the_page() -> None:
    assert "'unsafe" not in PLAYGROUND
    assert not re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", INDEX)


def test_the_files_share_an_address_that_changes_with_any_of_them() -> None:
    assert {address(name) for name in ASSETS} == {f"assets/{version()}/{name}" for name in ASSETS}
    assert set(re.findall(r'"(assets/[^"]+)"', page("index.html"))) <= {address(name) for name in ASSETS}
    assert version_of({**ASSETS, "main.js": ASSETS["docs.js"]}) != version() == version_of(ASSETS)
