"""The playground, opened in a real Chromium."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from chromium import PROGRAM, Chromium, Page
from gateway_harness import RunningGateway, TinyWorker

from service.messages import Parameters

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium")
PROMPT, MAKE, CANCEL = "#field-prompt", "#make", "#cancel"
HOSTILE = "<img src=x onerror=alert(1)> & 'more'"


@pytest.fixture(name="chromium", scope="module")
def chromium_of_a_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@contextmanager
def opened(chromium: Chromium, gateway: RunningGateway, rest: str = "", width: int = 1280) -> Iterator[Page]:
    """The page, ready to be used; in the end nothing is on its console, and it has asked nobody but us."""
    with chromium.page(f"{gateway.url}/{rest}", width) as page:
        page.until(f"document.querySelector('{MAKE}')?.disabled === false")
        yield page
        asked = [event["request"]["url"] for event in page.heard("Network.requestWillBeSent")]
        strangers = [url for url in asked if not url.startswith((gateway.url, "about:", "blob:", "data:"))]
        assert not strangers
        expected = re.compile(r"status of (401|422|503)")  # browsers call every one of these an error
        assert not [told for told in page.complaints() if not expected.search(told)]


@pytest.fixture(name="page")
def opened_page(chromium: Chromium, gateway: RunningGateway, worker: TinyWorker) -> Iterator[Page]:
    with opened(chromium, gateway) as ready:
        yield ready


def module(page: Page, name: str) -> str:
    """Import of one of the page's own modules, as an expression of it."""
    base = page.run("document.querySelector('script[type=module]').src")
    return f"import({json.dumps(base.replace('main.js', name))})"


def copied_link(page: Page) -> str:
    page.click(".link")
    page.until("document.querySelector('.link').textContent === 'Copied'")
    return str(page.run("navigator.clipboard.readText()"))


def parameters_of(worker: TinyWorker, job_id: str) -> Parameters:
    used: Parameters = worker.background.call(worker.queue.view(job_id)).job.parameters
    return used
