"""A client of a running service: what ``vqd generate`` does."""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from httpx_sse import connect_sse
from pydantic import ValidationError
from tqdm import tqdm

from service.errors import InferenceFailed, InvalidRequest, RetryLater, SetupError, Unavailable, VqdError, by_slug
from service.folders import require_writable, unwritable
from service.messages import Event
from service.provenance.names import file_name, write_new
from service.sockets import is_here

RECONNECT_S = 1.0
LAST_TRY_S = 30.0
"""How long a silent service may take to come back before we give up on it."""
WAITING = "{desc}: waiting for the first evaluation of the network"
DRAWING = "{desc}: {percentage:3.0f} %|{bar}| {n_fmt} of {total_fmt} evaluations, {remaining} left"


@dataclass(frozen=True)
class Saved:
    path: Path
    seed: int
    tokens_sha256: str


@dataclass(frozen=True)
class Outcome:
    """``answer`` is the job as the service describes it."""

    images: tuple[Saved, ...]
    answer: Mapping[str, Any]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the prompts was not drawn as it is written."""
        return tuple(self.answer.get("warnings", ()))


def error_of(response: httpx.Response) -> VqdError:
    """The error that a problem describes, as the class that the service raised."""
    try:
        body = response.json()
        kind, detail = named(str(body["type"])) or VqdError, str(body["detail"])
        if issubclass(kind, InvalidRequest):
            first = body["errors"][0]
            return kind(first["field"], "; ".join(filter(None, [first["message"], first.get("allowed")])))
        if issubclass(kind, RetryLater):
            return kind(detail, int(response.headers.get("Retry-After", "1")))
    except (ValueError, LookupError, TypeError, AttributeError):  # of a proxy, or of another version
        return VqdError(f"{response.url} answered {response.status_code}: {response.text[:200]}")
    return kind(detail)


def named(problem_type: str) -> type[VqdError] | None:
    """The class of a problem's type; None when this version has none."""
    return by_slug(problem_type.rpartition(":")[2])


def failure_of(answer: Mapping[str, Any]) -> VqdError:
    """Why a job has no pictures, as the class that its description names."""
    reason = answer.get("error") or "no reason given"
    kind = named(answer.get("error_type") or "") or InferenceFailed
    if issubclass(kind, InvalidRequest):
        field, _, message = reason.partition(": ")
        return kind(field, message)
    return kind(f"job {answer['id']} {answer['status']}: {reason}")


def name_of(answer: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """What the file of a job's picture is called."""
    if "request" in image:
        return file_name(image["request"])
    return f"{answer['id']}-{image['index']}.{answer['parameters']['format']}"  # a service of the version before


def read_event(data: str) -> Event | None:
    """None for a heartbeat or a `retry`, which come without data, and for an event that only a newer client knows."""
    try:
        return Event.model_validate_json(data) if data else None
    except ValidationError:
        return None


def checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        response.read()
        raise error_of(response)
    return response


def heeds_proxies(url: str) -> bool:
    """Whether the environment's proxies are asked on the way to ``url``: to this machine there is a shorter one."""
    return not is_here(urlsplit(url).hostname or "")


def authorization(api_key: str) -> dict[str, str]:
    """The headers that show an API key; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def place_of(job_id: str, index: int) -> str:
    return f"/jobs/{job_id}/images/{index}"


class Client:
    """One service at ``url``. Every fault leaves as the VqdError that the service raised, or as Unavailable.

    Raises SetupError for what is no URL, or a proxy of the environment that cannot be used.
    """

    def __init__(self, url: str, api_key: str = "", timeout_s: float = 30.0) -> None:
        headers = authorization(api_key)
        try:
            self.http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=heeds_proxies(url))
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise SetupError(f"{url} cannot be reached: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def patiently(self, method: str, path: str, **request: Any) -> httpx.Response:
        """A request that may be repeated, until the service answers anything but 503 or ``LAST_TRY_S`` are over."""
        give_up_s = time.monotonic() + LAST_TRY_S
        while True:
            try:
                return checked(self.http.request(method, path, **request))
            except Unavailable:
                if time.monotonic() > give_up_s:
                    raise
            except httpx.TransportError as error:
                if time.monotonic() > give_up_s:
                    raise Unavailable(f"{self.http.base_url} does not answer: {error}") from error
            time.sleep(RECONNECT_S)

    def greet(self) -> None:
        """Raises Unavailable at once when there is nobody."""
        try:
            self.http.get("/healthz")
        except httpx.TransportError as error:
            raise Unavailable(f"no service answers at {self.http.base_url}; start one with `vqd up`") from error

    def submit(self, fields: Mapping[str, object]) -> str:
        """Start a job; returns its id. A reply that got lost is asked for again with the same Idempotency-Key."""
        self.greet()
        headers = {"Prefer": "respond-async", "Idempotency-Key": secrets.token_hex(16)}
        headers["Content-Type"] = "application/json"
        # In ASCII, which carries bytes of the command line that are no text, too: the service says what is wrong.
        body = json.dumps(dict(fields))
        answer: dict[str, Any] = self.patiently("POST", "/generate", content=body, headers=headers).json()
        return str(answer["id"])

    def events(self, job_id: str) -> Iterator[Event]:
        """Every event once, in order, across lost connections, up to the terminal one."""
        after, silent_since_s = "", time.monotonic()
        while time.monotonic() - silent_since_s < LAST_TRY_S:
            with contextlib.suppress(httpx.TransportError, Unavailable):
                for event_id, event in self.connected_events(job_id, after):
                    after, silent_since_s = event_id, time.monotonic()
                    yield event
                    if event.status.terminal:
                        return
            time.sleep(RECONNECT_S)
        raise Unavailable(f"{self.http.base_url} sent no event of job {job_id} for {LAST_TRY_S:.0f} s")

    def connected_events(self, job_id: str, after: str) -> Iterator[tuple[str, Event]]:
        """Events of one connection as (id, event)."""
        with connect_sse(self.http, "GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": after}) as source:
            checked(source.response)
            for event in source.iter_sse():
                if known := read_event(event.data):
                    yield event.id, known

    def models(self) -> list[dict[str, Any]]:
        """The cards of the served models."""
        cards: list[dict[str, Any]] = self.patiently("GET", "/v1/models").json()["data"]
        return cards

    def cancel(self, job_id: str) -> None:
        checked(self.http.delete(f"/jobs/{job_id}"))

    def cancel_all(self, jobs: Iterable[str]) -> None:
        """Cancel what can be cancelled of jobs that nobody wants any more."""
        for job_id in jobs:
            with contextlib.suppress(VqdError, httpx.TransportError):
                self.cancel(job_id)

    def picture(self, job_id: str, index: int) -> bytes:
        """An encoded picture: from below our own URL, whatever prefix the service knows of."""
        return self.patiently("GET", place_of(job_id, index)).content

    def finished(self, job_id: str) -> dict[str, Any]:
        """A job that has ended, as the service describes it. Raises what ended it when it has no pictures."""
        answer: dict[str, Any] = self.patiently("GET", f"/jobs/{job_id}").json()
        if answer["status"] != "succeeded":
            raise failure_of(answer)
        return answer

    def save(self, job_id: str, folder: Path) -> Outcome:
        """Write the pictures of a finished job. Raises what ended it when it has none.

        Raises SetupError when they cannot be written, with the job's id: the service still has them.
        """
        answer = self.finished(job_id)
        saved = []
        for image in answer["images"]:
            name = name_of(answer, image)
            place = place_of(job_id, image["index"])
            picture = self.picture(job_id, image["index"])
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path = write_new(folder, name, picture)
            except OSError as error:
                why = unwritable(folder / name, error)
                raise SetupError(f"{why}; the service still has it: GET {place}") from None
            saved.append(Saved(path, image["seed"], image["tokens_sha256"]))
        return Outcome(tuple(saved), answer)


def generate(
    url: str,
    fields: Mapping[str, object],
    folder: Path,
    on_progress: Callable[[Event], None] = lambda _: None,
    api_key: str = "",
) -> Outcome:
    """Make pictures with the service at ``url`` and save them under ``folder``; an interrupt cancels the job."""
    require_writable(folder)  # before the work, not after it
    with Client(url, api_key) as client:
        job_id = client.submit(fields)
        try:
            for event in client.events(job_id):
                on_progress(event)
        except KeyboardInterrupt:
            client.cancel_all([job_id])
            raise
        return client.save(job_id, folder)


def generate_with_bar(url: str, fields: Mapping[str, object], folder: Path, api_key: str = "") -> Outcome:
    """``generate`` with a progress bar where stderr is a terminal, and without a word elsewhere."""
    wanted = fields.get("prompt", fields.get("label", "no condition"))
    prompt = " ".join(str(wanted).split())[:40]  # a line break would break the bar
    count = fields.get("n", 1)
    what = prompt if count == 1 else f"{count} pictures of {prompt}"
    with tqdm(desc=what, bar_format=WAITING, leave=False, disable=None) as bar:

        def on_progress(event: Event) -> None:
            if bar.total is None:
                bar.bar_format = DRAWING
                bar.reset(event.evaluations)  # what the queue took says nothing of what is left
            bar.update(event.evaluation - bar.n)

        return generate(url, fields, folder, on_progress, api_key)
