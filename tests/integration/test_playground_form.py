"""The playground's form: its fields, errors and keys, for every model and for everybody."""

import re

from chromium import Chromium, Page
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
from playground_support import (  # noqa: F401  two are fixtures
    CANCEL,
    HOSTILE,
    MAKE,
    PROMPT,
    chromium_of_a_module,
    copied_link,
    module,
    needs_chromium,
    opened,
    opened_page,
    parameters_of,
)

from service.condition import Condition
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import CHOICES
from service.gateway.schemas import GenerateRequest
from service.messages import Failure, ImageFormat, Priority
from service.settings import Settings

pytestmark = needs_chromium


def posts(page: Page) -> int:
    """How often the page has asked for pictures."""
    asked = [event["request"] for event in page.heard("Network.requestWillBeSent")]
    return sum(request["method"] == "POST" and request["url"].endswith("/generate") for request in asked)


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
            assert posts(other) == 1
            other.click("#notice button")
            other.see(".picture")
            assert posts(other) == 2
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
            page.see("#code pre", 3)
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


def test_a_key_that_may_not_do_this_can_be_replaced(
    chromium: Chromium, gateway: RunningGateway, settings: Settings, worker: TinyWorker
) -> None:
    ring = Keyring(settings)
    try:
        reader, maker = ring.make("read").token, ring.make("generate").token
        until(lambda: gateway.http.get("/v1/models").status_code == 401)
        with chromium.page(gateway.url + "/") as page:
            page.write("#key-value", reader)
            page.click("#key .strong")
            page.write(PROMPT, "a red circle")
            page.click(MAKE)
            assert "generate" in page.text("#key-why")
            page.write("#key-value", maker)
            page.click("#key .strong")
            page.until("!document.querySelector('#key').open")
            assert page.run(f"document.querySelector('{PROMPT}').value") == "a red circle"
            page.click(MAKE)
            page.see(".picture")
    finally:
        ring.close()


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
            assert page.run("document.querySelector('input[aria-label=Pictures]').max") == f"{RANGES['n'].maximum:.0f}"
            assert page.run("document.querySelector('[aria-label=\"Tokens a step\"]').value") == str(
                DEFAULTS.tokens_per_step
            )
            page.choose("#field-sampler", "ancestral")
            assert not page.run("document.querySelector('#field-tokens_per_step').checkVisibility()")
    finally:
        other.close()


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


def test_a_word_without_end_does_not_widen_the_page(page: Page) -> None:
    page.write(PROMPT, "x" * 2000)
    assert page.run("document.documentElement.scrollWidth") == 1280
    page.click(MAKE)


def test_light_and_dark_as_the_system_has_it_or_as_chosen(page: Page) -> None:
    def background(of: str = "body") -> str:
        return str(page.run(f"getComputedStyle(document.querySelector('{of}')).backgroundColor"))

    page.prefer(prefers_color_scheme="light")
    light = background()
    page.prefer(prefers_color_scheme="dark")
    assert background() != light
    page.click("#theme")
    assert background() == light
    page.prefer(prefers_reduced_motion="reduce")
    assert page.run("getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"
    page.prefer(prefers_color_scheme="dark")
    docs = page.run("document.querySelector('nav a').href")
    page.open(docs)
    page.until("document.querySelector('.opblock') !== null")
    light = background(".swagger-ui")
    page.run("localStorage.clear()")
    page.open(docs)
    page.until("document.querySelector('.opblock') !== null")
    assert background(".swagger-ui") != light
    page.prefer(prefers_color_scheme="light")
    page.until("document.querySelector('html.dark-mode') === null")
