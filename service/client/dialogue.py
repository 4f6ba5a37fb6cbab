"""What is asked of a service and how its answers are read, without input or output.

Each method is a generator: it yields an Ask, and is sent the response or thrown httpx's RequestError; or it yields a
Pause. It returns what was wanted.
"""

import secrets
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx

from service.client.address import shown
from service.client.answers import Answer, checked, failure_of, json_of
from service.client.fields import body_of
from service.client.job import JobFacts
from service.client.pictures import Pictures, picture_of, place_of
from service.errors import QuotaExceeded, RetryLater, StillRunning, Unavailable, VqdError
from service.messages import Status
from service.sockets import is_here

RECONNECT_S = 1.0
LAST_TRY_S = 30.0
"""How long a silent service may take to come back before we give up on it."""
LEAVE_S = 5.0
"""How long a service may be silent to whoever is interrupted and wants to leave; then the job is left to it."""
CLOSED = "this client is closed: it asks for nothing more"
MOST_LISTED = 100
"""Jobs in one answer."""
NOBODY = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
"""Nothing that listens was met."""


@dataclass(frozen=True)
class Ask:
    """``options``: what else httpx takes."""

    method: str
    path: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Pause:
    seconds: float


T = TypeVar("T")
Steps: TypeAlias = Generator[Ask | Pause, httpx.Response, T]


Wish: TypeAlias = Mapping[str, Any]
"""A job that is wanted, as what httpx takes: the same job, however often it is sent."""


def wish_of(fields: Mapping[str, Any]) -> Wish:
    headers = {"Prefer": "respond-async", "Idempotency-Key": secrets.token_hex(16), "Content-Type": "application/json"}
    return {"content": body_of(fields), "headers": headers}


@dataclass(eq=False)
class Owned:
    """A job that goes with whoever waits for it: cancelled by what ends the wait early. ``job``: once it is known."""

    wish: Wish
    job: JobFacts | None = None


class Dialogue:
    """With the service at ``url``. Every fault is a VqdError: what the service raised, or Unavailable."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.place, self.timeout_s, self.met = shown(url), timeout_s, False
        self.silent_until_s = 0.0

    def once(self, method: str, path: str, **options: Any) -> Steps[httpx.Response]:
        try:
            response = yield Ask(method, path, options)
        except httpx.RequestError as error:
            self.met |= not isinstance(error, NOBODY)
            raise Unavailable(self.silence(error)) from error
        self.met = True
        return checked(response)

    def silence(self, error: httpx.RequestError) -> str:
        why = str(error) or ("not in time" if isinstance(error, httpx.TimeoutException) else type(error).__name__)
        if not self.met:
            hint = "; start one with `vqd up`" if is_here(urlsplit(self.place).hostname or "") else ""
            return f"no service answers at {self.place}: {why}{hint}"
        return f"{self.place} does not answer: {why}"

    def patiently(
        self, method: str, path: str, within_s: float = LAST_TRY_S, until_s: float = inf, **options: Any
    ) -> Steps[httpx.Response]:
        """What may be repeated, until the service answers anything but 503 and 429; not when there is nobody.

        A silence may last ``LAST_TRY_S``, a caller's limit ``within_s``, and all of it until ``until_s`` on the
        monotonic clock; what would take longer is not waited for.
        """
        began_s = time.monotonic()
        while True:
            if until_s < inf:
                options["timeout"] = max(0.001, min(self.timeout_s, until_s - time.monotonic()))
            try:
                return (yield from self.once(method, path, **options))
            except RetryLater as error:
                pause_s = max(RECONNECT_S, error.retry_after_s)
                most_s = within_s if isinstance(error, QuotaExceeded) else min(within_s, LAST_TRY_S)
                if not self.met or time.monotonic() + pause_s > min(began_s + most_s, until_s):
                    raise
            yield Pause(pause_s)

    def submit(self, wish: Wish, within_s: float | None = None, until_s: float = inf) -> Steps[Answer]:
        """A new job. A reply that got lost is asked for again with the same Idempotency-Key."""
        most_s = LAST_TRY_S if within_s is None else within_s
        return json_of((yield from self.patiently("POST", "/generate", most_s, until_s, **wish)), "id")

    def unanswered(self, error: BaseException) -> bool:
        """Whether what ended ``submit`` may leave a job whose id nobody has heard."""
        return not isinstance(error, VqdError) or (self.met and isinstance(error.__cause__, httpx.RequestError))

    def withdraw(self, wish: Wish) -> Steps[Answer]:
        """What ``submit`` was doing when it was cut short: asked once more, the service tells which job that was."""
        job = json_of((yield from self.once("POST", "/generate", timeout=LEAVE_S, **wish)), "id")
        return (yield from self.cancel(job["id"], timeout=LEAVE_S))

    def leave(self, owned: Owned) -> Steps[Answer]:
        """Raises VqdError when it cannot be cancelled: it is over, or the service is gone."""
        if owned.job is None:
            return (yield from self.withdraw(owned.wish))
        return (yield from self.cancel(owned.job.id, timeout=LEAVE_S))

    def look(self, job_id: str, until_s: float = inf) -> Steps[Answer]:
        return json_of((yield from self.patiently("GET", place_of(job_id), until_s=until_s)), "id")

    def cancel(self, job_id: str, **options: Any) -> Steps[Answer]:
        """Once: the answer to a second time would be that it is over. Raises Conflict when it is."""
        return json_of((yield from self.once("DELETE", place_of(job_id), **options)), "id")

    def drop(self, job_id: str) -> Steps[Answer]:
        """``cancel`` for whoever is interrupted. Of several jobs only the first waits for a service that is silent."""
        if time.monotonic() < self.silent_until_s:
            raise Unavailable(f"{self.place} does not answer")
        try:
            return (yield from self.cancel(job_id, timeout=LEAVE_S))
        except Unavailable as error:
            if isinstance(error.__cause__, httpx.RequestError):
                self.silent_until_s = time.monotonic() + LEAVE_S
            raise

    def pictures(self, job_id: str, until_s: float = inf) -> Steps[Pictures]:
        """Of a job that has ended. Raises what ended it when it has none, and StillRunning before its end.

        They are asked for below our own URL, whatever prefix the service knows of.
        """
        answer = yield from self.look(job_id, until_s)
        if not (status := Status(answer["status"])).terminal:
            raise StillRunning(f"job {job_id} has no pictures yet: it is {status}")
        if status != Status.SUCCEEDED:
            raise failure_of(answer)
        images = []
        for image in answer["images"]:
            response = yield from self.patiently("GET", place_of(job_id, image["index"]), until_s=until_s)
            images.append(picture_of(answer, image, response.content))
        return Pictures(tuple(images), answer)

    def jobs(self, limit: int) -> Steps[list[Answer]]:
        """The newest, over as many pages as it takes; to a page without any that the service can read."""
        found: list[Answer] = []
        more = limit > 0
        while more:
            params = {"limit": min(limit - len(found), MOST_LISTED), "after": found[-1]["id"] if found else ""}
            page = json_of((yield from self.patiently("GET", "/jobs", params=params)), "data", "has_more")
            found += page["data"]
            more = page["has_more"] and page["data"] and len(found) < limit
        return found

    def models(self) -> Steps[list[Answer]]:
        """The cards of the served models."""
        cards: list[Answer] = json_of((yield from self.patiently("GET", "/v1/models")), "data")["data"]
        return cards
