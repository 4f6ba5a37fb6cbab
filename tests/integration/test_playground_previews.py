"""The playground shows a picture while a real worker makes it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium
from fleet import Fleet
from gateway_harness import RunningGateway
from playground_support import MAKE, PROMPT, chromium_of_a_module, needs_chromium, opened  # noqa: F401  one is a fixture

pytestmark = needs_chromium


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Slow enough to be looked at."""
    with_previews = Fleet(redis_url, tmp_path)
    with_previews.triton.delay_s = 0.1
    yield with_previews
    with_previews.close()


def test_a_picture_shows_itself_and_where_the_model_is_sure(chromium: Chromium, fleet: Fleet) -> None:
    fleet.start_worker()
    gateway = RunningGateway(fleet.settings)
    try:
        with opened(chromium, gateway) as page:
            page.write(PROMPT, "a red circle")
            page.write("[aria-label='Tokens a step']", "1")
            page.click(MAKE)
            page.see(".preview")
            page.see(".purity")
            before = page.run("document.querySelector('.preview').src")
            page.until(f"document.querySelector('.preview').src !== {before!r}")
            page.click("#cancel")
            page.see(MAKE)
    finally:
        gateway.close()
