"""The playground's pictures to begin with: chosen, painted over, sent, and linked."""

from pathlib import Path

import pytest
from chromium import Chromium, Page
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image
from playground_support import (  # noqa: F401  two are fixtures
    MAKE,
    PROMPT,
    chromium_of_a_module,
    copied_link,
    needs_chromium,
    opened,
    opened_page,
)

from service.messages import Edit
from service.settings import Settings

pytestmark = needs_chromium
FILE, MASK, CHANGE = "#picture-file", "canvas.mask", "document.querySelector('[aria-label=Change]').value"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Wider than high, as no model draws it."""
    path = tmp_path / "stripes.png"
    image = Image.new("RGB", (96, 64), "navy")
    image.paste("gold", (40, 0, 56, 64))
    image.save(path)
    return path


def choose(page: Page, path: Path) -> None:
    page.click("#picture-in summary")
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector=FILE)["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def paint(page: Page) -> None:
    """A stroke down the middle."""
    page.see(MASK)
    box = (
        f"(e => (e.scrollIntoView({{ block: 'center' }}), e.getBoundingClientRect()))(document.querySelector('{MASK}'))"
    )
    x, y, width, height = page.run(f"(({{ x, y, width, height }}) => [x, y, width, height])({box})")
    page.mouse("mousePressed", x + width / 2, y + height / 4)
    page.mouse("mouseMoved", x + width / 2, y + height * 3 / 4)
    page.mouse("mouseReleased", x + width / 2, y + height * 3 / 4)


def edits(worker: TinyWorker) -> list[Edit]:
    jobs = [worker.background.call(worker.queue.view(job)).job for job in worker.taken]
    return [job.edit for job in jobs]


def test_a_picture_is_painted_over_and_its_link_sends_the_same(
    chromium: Chromium, gateway: RunningGateway, page: Page, worker: TinyWorker, picture: Path
) -> None:
    page.write(PROMPT, "a red circle")
    choose(page, picture)
    page.see(MASK)
    assert page.run(CHANGE) == "0.7"
    paint(page)
    assert page.run(CHANGE) == "1"
    page.click(MAKE)
    page.see(".picture")
    link = copied_link(page)
    with opened(chromium, gateway, link.removeprefix(f"{gateway.url}/")) as fresh:
        fresh.see(".picture")
        assert fresh.text(".good") == "the same picture as in the link"
        fresh.see(MASK)
    first, again = edits(worker)
    assert first.strength == 1
    assert first.composite
    assert first.changes
    assert again == first


def test_without_paint_all_of_it_may_change_and_taken_away_nothing_is_sent(
    page: Page, worker: TinyWorker, picture: Path
) -> None:
    page.write(PROMPT, "a red circle")
    choose(page, picture)
    page.see(MASK)
    page.write("[aria-label=Change]", "0.4")
    page.click(MAKE)
    page.see(".picture")
    page.run(
        "[...document.querySelectorAll('#picture-in button')].find((e) => e.textContent === 'Take it away').click()"
    )
    page.click(MAKE)
    until(lambda: len(worker.taken) == 2)
    sent, nothing = edits(worker)
    assert (sent.strength, sent.changes, sent.composite) == (0.4, None, False)
    assert nothing is None


def test_the_brush_works_from_the_keyboard_and_a_made_picture_can_be_painted_over(
    page: Page, worker: TinyWorker
) -> None:
    page.write(PROMPT, "a red circle")
    page.click(MAKE)
    page.click(".edit")
    page.see(MASK)
    page.run(f"document.querySelector('{MASK}').focus()")
    for key in ("ArrowLeft", " "):
        page.press(key)
    assert page.run(CHANGE) == "1"
    page.press("e")
    page.press(" ")
    assert page.run(CHANGE) == "0.7", "what was painted is erased"
    page.press("e")
    page.press(" ")
    page.click(MAKE)
    until(lambda: len(worker.taken) == 2)
    assert edits(worker)[1].changes


def test_what_is_no_picture_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not a picture")
    choose(page, tmp_path / "note.png")
    assert page.text("#picture-in .error") == "note.png is no picture that a browser can read."


def test_what_is_dropped_or_pasted_is_taken_unless_it_is_text_as_well(page: Page) -> None:
    """A browser opens a file that a page does not take; a cell of a table is pasted as a picture, too."""
    taken = """(kind, text) => {
      const data = new DataTransfer();
      data.items.add(new File(["no picture"], `${kind}.pdf`, { type: "application/pdf" }));
      if (text) data.setData("text/plain", text);
      const told = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
      const event = kind === "drop" ? new DragEvent(kind, told) : new ClipboardEvent(kind, told);
      return !document.querySelector("#field-prompt").dispatchEvent(event);
    }"""
    assert page.run(f"({taken})('drop')")
    page.click("#picture-in summary")
    assert page.text("#picture-in .error") == "drop.pdf is no picture that a browser can read."
    assert page.run(f"({taken})('paste')")
    assert not page.run(f"({taken})('paste', 'red apple')")


def test_a_model_that_takes_no_pictures_offers_none(
    chromium: Chromium, gateway: RunningGateway, settings: Settings
) -> None:
    plain = TinyWorker(settings, MODEL.model_copy(update={"edits": False}))
    try:
        with opened(chromium, gateway) as page:
            assert not page.run("document.querySelector('#picture-in').checkVisibility()")
    finally:
        plain.close()
