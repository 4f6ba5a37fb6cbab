"""The playground in a real Chromium: each of its parts clicked, and what comes of it."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import PROGRAM, Chromium, Page
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    DEFAULTS,
    MODEL,
    RANGES,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from key_support import Keyring
from PIL import Image

from service.condition import Condition
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import CHOICES
from service.gateway.schemas import GenerateRequest
from service.messages import Failure, ImageFormat, Parameters, Priority, Status
from service.settings import Settings

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium")
PROMPT, MAKE, CANCEL = "#field-prompt", "#make", "#cancel"
HOSTILE = "<img src=x onerror=alert(1)> & 'more'"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
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


@pytest.fixture
def page(chromium: Chromium, gateway: RunningGateway, worker: TinyWorker) -> Iterator[Page]:
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


def posts(gateway: RunningGateway) -> float:
    return sum(
        gateway.metric(f'vqd_http_requests_total{{method="POST",route="/generate",status="{status}"}}')
        for status in (202, 401, 422, 503)
    )


def test_a_picture_is_made_and_its_link_makes_it_again_in_a_fresh_profile(
    chromium: Chromium, gateway: RunningGateway, page: Page
) -> None:
    page.write(PROMPT, "a red circle")
    page.write("[aria-label=Guidance]", "4.5")
    page.click(MAKE)
    page.see(".picture")
    tokens = page.run("document.querySelector('.tile').dataset.tokens")
    assert re.fullmatch("[0-9a-f]{64}", tokens)
    link = copied_link(page)
    with opened(chromium, gateway, link.removeprefix(f"{gateway.url}/")) as fresh:
        fresh.see(".picture")
        assert fresh.run("document.querySelector('.tile').dataset.tokens") == tokens
        assert fresh.text(".good") == "the same picture as in the link"
        assert fresh.run(f"document.querySelector('{PROMPT}').value") == "a red circle"
        assert fresh.run("document.querySelector('[aria-label=Guidance]').value") == "4.5"
        assert fresh.run("location.hash") == ""
    other = link.replace(tokens, "0" * 64)
    with opened(chromium, gateway, other.removeprefix(f"{gateway.url}/")) as fresh:
        assert fresh.text("figcaption .error").startswith("not the picture of the link")


def test_a_sweep_is_nine_jobs_and_a_labelled_sheet(
    chromium: Chromium, page: Page, worker: TinyWorker, tmp_path: Path
) -> None:
    page.write(PROMPT, "a red circle")
    page.click("input[value=sweep] + span")
    assert page.text(MAKE) == "Make 9 pictures"
    page.write("[aria-label^='Down: its']", "0, 1.5, 2")
    assert page.run("document.querySelector('[aria-label^=\"Across: its\"]').value") == "1.5, 3, 6"
    page.click(MAKE)
    page.see(".sweep .picture", 9)
    assert page.run("[...document.querySelectorAll('.sweep thead th')].map(e => e.textContent)") == [
        "s 1.5",
        "s 3",
        "s 6",
    ]
    assert page.run("[...document.querySelectorAll('.sweep tbody th')].map(e => e.textContent)") == [
        "r 0",
        "r 1.5",
        "r 2",
    ]
    made = [parameters_of(worker, job) for job in worker.taken]
    assert {(one.guidance_scale, one.purity_r) for one in made} == {(s, r) for s in (1.5, 3, 6) for r in (0, 1.5, 2)}
    assert len({one.seed for one in made}) == 1, "with different seeds nothing can be compared"
    chromium.send(
        "Browser.setDownloadBehavior", browserContextId=page.profile, behavior="allow", downloadPath=str(tmp_path)
    )
    page.click(".sheet")
    (sheet,) = until(lambda: list(tmp_path.glob("a-red-circle-sweep-*.png")))
    picture = Image.open(io.BytesIO(sheet.read_bytes())).convert("RGB")
    assert picture.width > 3 * 128
    assert min(picture.crop((0, 0, picture.width, 80)).tobytes()) < 100, "its title and headings are written"
    page.click(".sweep tbody tr:last-child td:last-child button")
    page.see(".chosen .picture")


def parameters_of(worker: TinyWorker, job_id: str) -> Parameters:
    used: Parameters = worker.background.call(worker.queue.view(job_id)).job.parameters
    return used


def test_what_is_wrong_stands_at_its_field(page: Page, worker: TinyWorker) -> None:
    before = page.text("#stage")
    page.click(MAKE)
    assert page.text("#field-prompt-error").startswith("is missing: shapes draws from a prompt")
    assert page.run(f"document.activeElement === document.querySelector('{PROMPT}')")
    assert page.run(f"document.querySelector('{PROMPT}').ariaInvalid") == "true"
    page.write(PROMPT, "a red circle")
    page.run("document.querySelector('#advanced').open = true")
    page.write("[aria-label=Temperature]", "99")
    page.run("document.querySelector('#advanced').open = false")
    page.click(MAKE)
    assert "a number from 0.01 to 5" in page.text("#field-temperature-error")
    assert page.run("document.querySelector('#advanced').open")
    assert not page.run(f"document.querySelector('{PROMPT}').ariaInvalid")
    assert page.text("#stage") == before, "what was on the stage is still there"
    worker.failure = Failure(kind="invalid-request", message="is too long", field="prompt")
    page.write("[aria-label=Temperature]", "1")
    page.click(MAKE)
    assert page.text("#field-prompt-error") == "is too long"


def test_a_full_queue_is_counted_down_and_asked_again_only_by_the_person(
    chromium: Chromium, settings: Settings, gateway: RunningGateway, page: Page, worker: TinyWorker
) -> None:
    worker.hold.set()
    small = RunningGateway(settings.model_copy(update={"queue_capacity": 1}))
    try:
        gateway.start()
        with opened(chromium, small) as other:
            other.write(PROMPT, "a red circle")
            other.click(MAKE)
            assert "full" in other.text("#notice p")
            assert re.fullmatch(r"Try again in \d+ s", other.text("#notice button"))
            assert other.run("document.querySelector('#notice button').disabled")
            worker.hold.clear()
            other.until("!document.querySelector('#notice button').disabled")
            assert posts(small) == 1
            other.click("#notice button")
            other.see(".picture")
            assert posts(small) == 2
    finally:
        worker.hold.clear()
        small.close()


def test_a_key_is_asked_for_when_the_service_wants_one_and_kept_only_by_choice(
    chromium: Chromium, gateway: RunningGateway, settings: Settings, worker: TinyWorker
) -> None:
    ring = Keyring(settings)
    try:
        key = ring.make("generate", "read").token
        until(lambda: gateway.http.get("/v1/models").status_code == 401)
        with chromium.page(gateway.url + "/") as page:
            page.write("#key-value", "wrong")
            page.click("#key .strong")
            page.see("#key-why")
            page.write("#key-value", key)
            page.click("#key .strong")
            page.write(PROMPT, "a red circle")
            page.click(MAKE)
            page.see(".picture")
            assert page.run("JSON.stringify([{...sessionStorage}, {...localStorage}])") == "[{},{}]"
            page.click("#code summary")
            page.see("#code pre", 2)
            assert "$VQD_API_KEY" in page.text("#code")
            assert key not in page.run("document.documentElement.outerHTML")
            page.open(gateway.url + "/")
            page.write("#key-value", key)
            page.click("#key-keep")
            page.click("#key .strong")
            page.until(f"document.querySelector('{MAKE}').disabled === false")
            page.open(gateway.url + "/")
            page.until(f"document.querySelector('{MAKE}').disabled === false")
            assert not page.run("document.querySelector('#key').open")
    finally:
        ring.close()


def test_a_job_can_be_cancelled_and_the_page_says_what_the_service_does(page: Page, worker: TinyWorker) -> None:
    worker.hold.set()
    page.write(PROMPT, "a red circle")
    page.click(MAKE)
    page.until("document.querySelector('figcaption').textContent === 'Step 1 of 4'")
    page.until("document.querySelector('#status-text').textContent.startsWith('1 job,')")
    page.click(CANCEL)
    page.see(MAKE)
    assert until(lambda: worker.ended[worker.taken[0]]) is Status.CANCELLED
    page.until("document.querySelector('#status-text').textContent === 'Ready'")


def test_four_at_a_time_and_another_seed(page: Page, worker: TinyWorker) -> None:
    page.write(PROMPT, "a red circle")
    page.write("#field-seed", "7")
    page.click(MAKE)
    page.see(".picture")
    page.click(".four")
    page.see(".many .picture", 4)
    page.click(".cell")
    page.click(".chosen .again")
    page.see(".tiles:not(.many) .picture")
    first, four, again = (parameters_of(worker, job) for job in worker.taken)
    assert (first.seed, four.n, again.n) == (7, 4, 1)
    assert 7 not in (four.seed, again.seed)


def test_history_outlives_the_page_and_can_be_forgotten(page: Page, gateway: RunningGateway) -> None:
    page.write(PROMPT, "a red circle")
    for count in (1, 2):
        page.click(MAKE)
        page.see("#history li", count)
    page.open(gateway.url + "/")
    page.see("#history li", 2)
    page.click("#history li button")
    page.see(".picture")
    page.click(".restore")
    assert page.run(f"document.querySelector('{PROMPT}').value") == "a red circle"
    page.click("#history li .drop-one")
    page.see("#history li", 1)
    store = module(page, "store.js")
    page.run(store + ".then(async (store) => { for (let i = 0; i < 205; i++) await store.keep({ i }); })")
    kept = page.run(f"{store}.then(async (store) => (await store.kept()).map(({{ i }}) => i))")
    assert kept == [*range(204, 4, -1)], "the last 200"


def test_text_from_outside_stays_text(page: Page, worker: TinyWorker) -> None:
    worker.warnings = (HOSTILE,)
    page.write(PROMPT, HOSTILE)
    page.click("#code summary")
    page.click(MAKE)
    page.see(".picture")
    assert page.text("figcaption .note") == HOSTILE
    assert page.run("document.querySelector('.picture').alt").startswith(HOSTILE)
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    quoted = re.search(r"-d '(.*)' \\\n", page.text("#code"))
    assert quoted
    assert json.loads(quoted[1].replace("'\\''", "'")) == {"prompt": HOSTILE}


def test_every_field_of_a_request_has_words_and_its_choices(page: Page) -> None:
    fields = page.run(f"{module(page, 'fields.js')}.then(({{ FIELDS }}) => FIELDS)")
    assert set(GenerateRequest.model_fields) <= set(fields)
    assert all(field.get("hint") for field in fields.values() if "place" in field)
    choices = {name: set(field["options"]) for name, field in fields.items() if "options" in field}
    assert choices.pop("guidance_schedule") == set(GUIDANCE_SCHEDULES)
    assert choices.pop("format") == set(ImageFormat)
    assert choices.pop("priority") == set(Priority)
    for name in choices.keys() & CHOICES.keys():
        assert choices[name] == set(CHOICES[name])


def test_each_kind_of_model_gets_its_own_form(
    chromium: Chromium, settings: Settings, gateway: RunningGateway, worker: TinyWorker
) -> None:
    gateway.gateway.directory.max_age_s = 0
    labels = {"condition": Condition.LABEL, "classes": 3, "labels": ("cat", "dog", "emu"), "guidance": False}
    other = TinyWorker(settings, MODEL.model_copy(update={"name": "animals", **labels}), "other")
    try:
        with opened(chromium, gateway) as page:
            assert page.run("document.querySelector('#field-model').value") == "animals"
            assert not page.run("!!document.querySelector('#field-prompt, #field-guidance_scale')")
            page.write("#field-label", "dog")
            page.click(MAKE)
            page.see(".picture")
            view = other.background.call(other.queue.view(other.taken[0]))
            assert (view.job.model, view.job.label) == ("animals", 1)
            page.choose("#field-model", "shapes")
            page.see(PROMPT)
            assert page.run("document.querySelector('[aria-label=Pictures]').max") == f"{RANGES['n'].maximum:.0f}"
            assert page.run("document.querySelector('[aria-label=\"Tokens a step\"]').value") == str(
                DEFAULTS.tokens_per_step
            )
            page.choose("#field-sampler", "ancestral")
            assert not page.run("document.querySelector('#field-tokens_per_step').checkVisibility()")
    finally:
        other.close()


def test_previews_are_shown_while_they_come(page: Page) -> None:
    page.run(
        module(page, "tile.js")
        + """.then(({ Tile }) => {
          const dot = document.createElement('canvas');
          dot.width = dot.height = 1;
          const preview = dot.toDataURL('image/png').split(',')[1];
          const tile = new Tile({});
          document.querySelector('#stage').replaceChildren(tile.element);
          const running = { evaluation: 2, evaluations: 8, committed: .25, status: 'running' };
          tile.progress({ ...running, preview, purity_map: preview }, 0);
        })"""
    )
    page.see(".preview")
    page.see(".purity")
    assert page.text("figcaption") == "Step 2 of 8"
    assert page.run("document.querySelector('progress').value") == 0.25


def test_it_can_be_used_by_keyboard_by_ear_and_on_a_phone(
    chromium: Chromium, gateway: RunningGateway, worker: TinyWorker
) -> None:
    with opened(chromium, gateway, width=360) as page:
        page.write(PROMPT, "a red circle")
        page.press("Enter", modifiers=2, windowsVirtualKeyCode=13)
        page.see(".picture")
        assert page.text("#said") == "The picture is ready"
        page.run("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
        assert page.run("document.documentElement.scrollWidth") == 360
        nameless = """[...document.querySelectorAll('input, select, textarea, button')]
          .filter((e) => !e.ariaLabel && !e.labels?.length && !e.textContent.trim()).map((e) => e.outerHTML)"""
        assert page.run(nameless) == []
        repeated = (
            """[...document.querySelectorAll('[id]')].map(({ id }) => id).filter((id, i, all) => all.indexOf(id) < i)"""
        )
        assert page.run(repeated) == []


def test_light_and_dark_as_the_system_has_it_or_as_chosen(page: Page) -> None:
    def background() -> str:
        return str(page.run("getComputedStyle(document.body).backgroundColor"))

    page.prefer(prefers_color_scheme="light")
    light = background()
    page.prefer(prefers_color_scheme="dark")
    assert background() != light
    page.click("#theme")
    assert background() == light
    page.prefer(prefers_reduced_motion="reduce")
    assert page.run("getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"
