"""The playground: pictures made, made again, swept, kept and cancelled, in a real Chromium."""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
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
from PIL import Image
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

from service.messages import Status

pytestmark = needs_chromium


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


def test_a_sampler_that_has_no_use_for_a_setting_says_so_in_its_cells(page: Page, worker: TinyWorker) -> None:
    page.write(PROMPT, "a red circle")
    page.click("input[value=sweep] + span")
    page.choose("[aria-label^='Across: which']", "tokens_per_step")
    page.choose("[aria-label^='Down: which']", "sampler")
    page.write("[aria-label^='Down: its']", "purity, ancestral")
    page.click(MAKE)
    page.see(".sweep .picture", 6)
    rows = "[...document.querySelectorAll('.sweep tbody tr')]"
    told = page.run(f"{rows}.map((row) => row.innerText.match(/z does not apply/g))")
    assert told == [None, ["z does not apply"] * 3]
    assert {parameters_of(worker, job).tokens_per_step for job in worker.taken} == {4, 8, 16, None}
    page.write("[aria-label^='Down: its']", "")
    page.click(MAKE)
    assert page.text("#sweep .error").startswith("Write at least one value")


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


def test_events_that_break_off_are_taken_up_again(page: Page, gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    page.write(PROMPT, "a red circle")
    page.click(MAKE)
    page.until("document.querySelector('figcaption').textContent === 'Step 1 of 4'")
    (feed,) = gateway.gateway.feeds.feeds.values()
    gateway.background_call(feed.end)
    until(lambda: not feed.listeners)
    worker.hold.clear()
    page.see(".picture")
    asked = [event["request"] for event in page.heard("Network.requestWillBeSent")]
    streams = [request["headers"] for request in asked if "/events?" in request["url"]]
    assert ["Last-Event-ID" in headers for headers in streams] == [False, True]


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
    page.click(MAKE)
    page.see(".picture")
    assert page.text("figcaption .note") == HOSTILE
    assert page.run("document.querySelector('.picture').alt").startswith(HOSTILE)
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0


def test_a_link_of_a_stranger_does_no_more_than_ask(
    chromium: Chromium, gateway: RunningGateway, worker: TinyWorker
) -> None:
    odd = {"prompt": HOSTILE, "constructor": HOSTILE, "guidance_schedule": [1, 2]}
    with opened(chromium, gateway, f"#request={quote(json.dumps(odd))}") as page:
        assert page.text("#notice p").startswith("constructor: there is no such field")
        assert page.text("#carried") == (
            f"Also as in the link: constructor {json.dumps(HOSTILE)}, guidance_schedule [1,2]"
        )
        assert not worker.taken
        page.click("#reset")
        page.click(MAKE)
        page.see(".picture")
    for broken in ("#request=1", "#request={", "#nothing"):
        with opened(chromium, gateway, broken) as page:
            assert page.text(MAKE) == "Make a picture"


def test_a_sweep_fits_a_phone(chromium: Chromium, gateway: RunningGateway, worker: TinyWorker) -> None:
    with opened(chromium, gateway, width=390) as page:
        page.write(PROMPT, "a red circle")
        page.click("input[value=sweep] + span")
        page.click(MAKE)
        page.see(".sweep .picture", 9)
        assert page.run("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))") == 0


@pytest.mark.parametrize("n", [1, 2])
def test_the_lines_for_programs_make_what_is_on_the_screen(
    page: Page, worker: TinyWorker, tmp_path: Path, n: int
) -> None:
    page.write(PROMPT, HOSTILE)
    page.write("#field-seed", "7")
    page.write("input[aria-label=Pictures]", str(n))
    page.run("document.querySelector('#code').open = true")
    page.see("#code pre", 3)
    curl, python, javascript = page.run("[...document.querySelectorAll('#code pre')].map((code) => code.textContent)")
    assert subprocess.run([sys.executable, "-c", python], check=False, cwd=tmp_path, timeout=30).returncode == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    own = "img-src-x-onerror-alert-1-more-7.png"
    assert names == ([own] if n == 1 else [f"0-{own}", f"1-{own}"])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    if node := shutil.which("node"):
        made_by_python = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        (tmp_path / "it.mjs").write_text(javascript)
        assert subprocess.run([node, "it.mjs"], check=False, cwd=tmp_path, timeout=30).returncode == 0
        assert {name: (tmp_path / name).read_bytes() for name in names} == made_by_python
    if shutil.which("curl"):
        assert subprocess.run(["sh", "-c", curl], check=False, cwd=tmp_path, timeout=30).returncode == 0
        refused, before = curl.replace('"seed":7', '"seed":-7').replace("-o '", "-o 'refused-"), set(tmp_path.iterdir())
        assert subprocess.run(["sh", "-c", refused], check=False, cwd=tmp_path, timeout=30).returncode == 22
        assert set(tmp_path.iterdir()) == before, "an error is no picture"
        made = (tmp_path / own).read_bytes() if n == 1 else b"\x89PNG"
        assert made.startswith(b"\x89PNG")
        assert n == 1 or len(json.loads((tmp_path / "pictures.json").read_text())["images"]) == n
    jobs = [worker.background.call(worker.queue.view(job)).job for job in worker.taken]
    assert {(job.prompt, job.parameters.seed, job.parameters.n) for job in jobs} == {(HOSTILE, 7, n)}


def test_a_field_that_a_stranger_named_is_no_code(page: Page) -> None:
    asked = json.dumps({"x); print('owned'": 1, "seed": 7})
    told = page.run(f"{module(page, 'snippets.js')}.then(({{ python }}) => python({asked}, 'a.png'))")
    names = [node for node in ast.walk(ast.parse(told)) if isinstance(node, ast.Name | ast.keyword)]
    assert [node.arg for node in names if isinstance(node, ast.keyword)] == [None, "seed"]
    assert {node.id for node in names if isinstance(node, ast.Name)} == {"vqd", "client", "made"}


def test_who_waits_is_told_how_long(page: Page) -> None:
    told = page.run(
        module(page, "tile.js")
        + """.then(({ Tile }) => [{ ahead: 3, estimate_s: 4.2 }, { ahead: 1 }, { ahead: 0 }, {}].map((place) => {
          const tile = new Tile({});
          tile.wait({ status: 'queued', ...place });
          return tile.caption.textContent;
        }))"""
    )
    assert told == [
        "Waiting: 3 jobs go first, about 5 s",
        "Waiting: 1 job goes first",
        "Waiting: it is next",
        "Waiting for its turn",
    ]


def test_previews_are_shown_while_they_come(page: Page) -> None:
    page.run(
        module(page, "tile.js")
        + """.then(({ Tile }) => {
          const dot = document.createElement('canvas');
          dot.width = dot.height = 1;
          const png = dot.toDataURL('image/png').split(',')[1];
          const [tile, other] = [new Tile({}), new Tile({})];
          document.querySelector('#stage').replaceChildren(tile.element, other.element);
          const running = { evaluation: 2, evaluations: 8, committed: .25, status: 'running' };
          tile.progress({ ...running, previews: [{ index: 0, b64_png: png, purity_map: png }] }, 0);
          other.progress({ ...running, previews: [{ index: 0, b64_png: png }] }, 1);
        })"""
    )
    page.see(".preview")
    page.see(".purity")
    page.see(".waiting")
    assert page.text(".tile:first-child figcaption") == "Step 2 of 8"
    assert page.run("document.querySelector('progress').value") == 0.25
