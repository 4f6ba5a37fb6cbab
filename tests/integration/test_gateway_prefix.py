"""Behind a proxy that serves the gateway under a prefix and takes it away: every reference leads back there."""

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from chromium import Chromium
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from playground_support import MAKE, PROMPT, chromium_of_a_module, needs_chromium  # noqa: F401  one is a fixture
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from service.client import saving
from service.gateway.paths import route_path
from service.settings import Settings
from service.sockets import open_server

PREFIX = "/vqd"
METHODS = ["GET", "POST", "DELETE", "OPTIONS", "PUT"]


def stripping(upstream: str) -> Starlette:
    """A proxy: what is below the prefix goes upstream without it, with the client's Host; the answer is streamed."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=upstream, timeout=30) as app.state.http:
            yield

    async def forward(request: Request) -> StreamingResponse:
        http: httpx.AsyncClient = request.app.state.http
        path = request.url.path.removeprefix(PREFIX)
        asked = http.build_request(request.method, path, headers=request.headers.raw, content=await request.body())
        answer = await http.send(asked, stream=True)
        passed = StreamingResponse(answer.aiter_raw(), answer.status_code)
        passed.raw_headers = answer.headers.raw
        return passed

    return Starlette(routes=[Route(PREFIX + "/{path:path}", forward, methods=METHODS)], lifespan=lifespan)


@pytest.fixture(name="settings")
def settings_with_a_prefix(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, redis_timeout_s=5.0, sync_wait_s=20, lease_ms=60_000, root_path=PREFIX)


@pytest.fixture
def public(gateway: RunningGateway) -> Iterator[httpx.Client]:
    """A client of the proxy, at the prefix's URL."""
    with open_server("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(stripping(gateway.url), log_config=None, ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}", timeout=30) as http:
            yield http
        server.should_exit = True
        thread.join(15)


def test_location_and_pictures_are_below_the_prefix(public: httpx.Client, worker: TinyWorker) -> None:
    worker.hold.set()  # or it may be done by the time of the answer, which then has the picture
    started = public.post("/generate", json={"prompt": "a red circle"}, headers={"Prefer": "respond-async"})
    worker.hold.clear()
    place = started.url.join(started.headers["Location"])
    assert place.path == f"{PREFIX}/jobs/{started.json()['id']}"
    with public.stream("GET", f"{place}/events") as events:
        assert "event: succeeded" in list(events.iter_lines())
    (image,) = public.get(str(place)).json()["images"]
    assert public.get(str(place.join(image["url"]))).content.startswith(b"\x89PNG")


def test_the_document_and_its_pages_are_below_the_prefix(public: httpx.Client, gateway: RunningGateway) -> None:
    for page in (public.get("/docs"), public.get("/")):
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        addresses = re.findall(r'(?:src|href)="(assets/[^"]+)"', page.text)
        assert addresses
        for address in addresses:
            assert public.get(str(page.url.join(address))).status_code == 200
    assert public.get("/redoc").headers["Location"] == "docs"
    document = public.get(str(page.url.join("openapi.json"))).json()
    assert document["servers"] == [{"url": PREFIX}]
    assert "/generate" in document["paths"]


@needs_chromium
def test_the_playground_works_below_the_prefix(
    chromium: Chromium, public: httpx.Client, gateway: RunningGateway, worker: TinyWorker
) -> None:
    with chromium.page(f"{public.base_url}", width=1280) as page:
        page.write(PROMPT, "a red circle")
        page.click(MAKE)
        page.see(".picture")
        assert page.text("#status-text") != "The service does not answer"
        assert page.complaints() == []


def test_a_problem_names_what_was_asked_for(public: httpx.Client) -> None:
    assert public.get("/jobs/a").json()["instance"] == f"{PREFIX}/jobs/a"
    refused = public.put("/jobs/a")
    assert (refused.status_code, sorted(refused.headers["Allow"].split(", "))) == (405, ["DELETE", "GET", "HEAD"])


def test_what_reaches_us_directly_has_no_prefix_and_metrics_have_the_route(
    public: httpx.Client, gateway: RunningGateway
) -> None:
    public.get("/jobs/a")
    assert gateway.http.get("/healthz").status_code == 200
    assert gateway.metric('vqd_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"}') == 1
    assert gateway.http.get(f"{PREFIX}/healthz").status_code == 404


def test_our_client_works_with_a_prefix(public: httpx.Client, worker: TinyWorker, tmp_path: Path) -> None:
    saved = saving.generate(str(public.base_url), {"prompt": "a red circle"}, tmp_path).images
    assert saved[0].path.read_bytes().startswith(b"\x89PNG")


def test_a_page_at_the_prefix_is_our_own(public: httpx.Client) -> None:
    origin = str(public.base_url).removesuffix(f"{PREFIX}/")
    assert public.get("/v1/models", headers={"Origin": origin}).status_code == 200
    assert public.get("/v1/models", headers={"Origin": "http://evil.example"}).status_code == 403


def test_the_operator_says_what_clients_reach_it_at(settings: Settings) -> None:
    """TLS ends at the proxy, so what we were asked by is http."""
    running = RunningGateway(settings.model_copy(update={"public_url": "https://vqd.example.com"}))
    worker = TinyWorker(settings)
    try:
        until(lambda: running.http.get("/readyz").status_code == 200)
        asked = {"prompt": "a red circle", "response_format": "url"}
        [picture] = running.http.post("/v1/images/generations", json=asked).json()["data"]
        assert picture["url"].startswith(f"https://vqd.example.com{PREFIX}/jobs/")
    finally:
        worker.close()
        running.close()


@pytest.mark.parametrize("name", ["X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For"])
def test_what_a_client_claims_to_have_come_by_changes_nothing(gateway: RunningGateway, name: str) -> None:
    claim = {name: {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}.get(name, "/evil.example")}
    plain, claimed = (gateway.http.get("/openapi.json", headers=headers) for headers in ({}, claim))
    assert plain.content == claimed.content
    problem = gateway.http.get("/jobs/a", headers=claim).json()
    assert problem["instance"] == f"{PREFIX}/jobs/a"


@pytest.mark.parametrize(
    ("path", "root", "route"),
    [("/vqd/generate", "/vqd", "/generate"), ("/generate", "", "/generate"), ("/vqdx/a", "/vqd", "/vqdx/a")],
)
def test_the_path_of_the_route(path: str, root: str, route: str) -> None:
    assert route_path({"type": "http", "path": path, "root_path": root}) == route
