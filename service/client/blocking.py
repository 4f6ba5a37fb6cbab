"""The client that waits: ``vqd.Client``."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, Self, TypeVar, Unpack

import httpx
from httpx_sse import EventSource

from service.client.address import HERE, connection
from service.client.answers import Answer
from service.client.dialogue import Ask, Dialogue, Pause, Steps
from service.client.events import Event
from service.client.fields import Fields, Options, Source
from service.client.job import JobFacts
from service.client.listening import Listening, Previews, lost, streams
from service.client.pictures import Pictures
from service.errors import VqdError

T = TypeVar("T")


class Client:
    """One service at ``url``. Every fault leaves as the VqdError that the service raised, or as Unavailable.

    ``api_key``: None: what VQD_API_KEY says. ``timeout_s``: how long the service may be silent on a connection.
    Raises SetupError for what is no URL, or a proxy of the environment that cannot be used.
    """

    def __init__(self, url: str = HERE, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        with connection(url, api_key, timeout_s) as options:
            self.http = httpx.Client(**options)
        self.dialogue, self.timeout_s = Dialogue(url), timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def generate(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> Pictures:
        """The pictures, once they are made. Whatever ends the wait early, an interrupt too, cancels the job.

        Raises StillRunning after ``timeout_s``, and what the service did.
        """
        began_s = time.monotonic()
        with self.submit(prompt, timeout_s=timeout_s, **fields) as job:
            return job.wait(None if timeout_s is None else began_s + timeout_s - time.monotonic())

    def edit(
        self,
        prompt: str | None = None,
        *,
        image: Source,
        mask: Source | None = None,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> Pictures:
        """``generate``, beginning with ``image``; ``mask`` is white, or transparent, where it may change."""
        fields: Fields = {**options, "image": image, "mask": mask}
        return self.generate(prompt, timeout_s=timeout_s, **fields)

    def stream(self, prompt: str | None = None, *, previews: Previews = False, **fields: Unpack[Fields]) -> "Events":
        """Makes pictures and says how far they are; the last event has them. Leaving early cancels the job."""

        def events() -> Generator[Event, None, None]:
            with self.submit(prompt, **fields) as job:
                for event in job.events(previews):
                    yield event.model_copy(update={"pictures": job.pictures()}) if job.over else event

        return Events(events())

    def submit(self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]) -> "Job":
        """A job that runs whether or not anybody waits. ``timeout_s``: how long to wait for a limit of the caller's."""
        return Job(self, self.run(self.dialogue.submit({"prompt": prompt, **fields}, timeout_s)))

    def job(self, job_id: str) -> "Job":
        return Job(self, self.run(self.dialogue.look(job_id)))

    def jobs(self, limit: int = 20) -> list["Job"]:
        """Yours: those that wait or run, newest first, then those that ended, last ended first."""
        return [Job(self, answer) for answer in self.run(self.dialogue.jobs(limit))]

    def models(self) -> list[Answer]:
        """The cards of the served models: what each draws from, its fields, defaults and ranges."""
        return self.run(self.dialogue.models())

    def run(self, steps: Steps[T]) -> T:
        """Carry out a part of the dialogue."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self.carry_out(step)
                except httpx.TransportError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def carry_out(self, step: Ask | Pause) -> Any:
        if isinstance(step, Ask):
            return self.http.request(step.method, step.path, **step.options)
        return time.sleep(step.seconds)

    def listen(self, job: "Job", listening: Listening) -> Generator[Event, None, None]:
        """The events of a job, which takes note of them."""
        path = f"/jobs/{job.id}/events"
        while not listening.over:
            with lost, self.http.stream("GET", path, **listening.connection(self.timeout_s)) as response:
                if not streams(response):
                    response.read()
                listening.accept(response)
                for heard in () if listening.over else EventSource(response).iter_sse():
                    if event := listening.hear(heard):
                        yield job.note(event)
                    if listening.over or listening.stale:
                        break
            time.sleep(listening.pause_s())


class Job(JobFacts):
    """A job of a service. As a context manager it is cancelled when the block is left by an error before its end."""

    def __init__(self, client: Client, answer: Answer) -> None:
        super().__init__(answer)
        self.client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and not self.over:
            with suppress(VqdError):  # it may be over, or the service gone
                self.cancel()

    def refresh(self) -> Self:
        """Ask for its present state."""
        self.answer = self.client.run(self.client.dialogue.look(self.id))
        return self

    def events(self, previews: Previews = False) -> "Events":
        """From its beginning to its end, whatever that is. Leaving early closes the connection, and no more."""
        return Events(self.client.listen(self, Listening(self.client.dialogue.place, self.id, previews)))

    def wait(self, timeout_s: float | None = None) -> Pictures:
        """Its pictures, once there are. Raises what ended it otherwise, and StillRunning after ``timeout_s``.

        A service that falls silent is noticed up to a second, or a tenth of the time, too late.
        """
        if not self.over:
            for _ in self.client.listen(self, Listening(self.client.dialogue.place, self.id, timeout_s=timeout_s)):
                pass
        return self.pictures()

    def pictures(self) -> Pictures:
        """Of a job that is over. Raises what ended it when it has none."""
        return self.client.run(self.client.dialogue.pictures(self.id))

    def cancel(self) -> None:
        """Raises Conflict when it is over."""
        self.answer = self.client.run(self.client.dialogue.cancel(self.id))


class Events(Iterator[Event]):
    """Events as they come. ``with`` ends their connection where it is left, as ``close`` does, or the last event."""

    def __init__(self, events: Generator[Event, None, None]) -> None:
        self.events = events

    def __next__(self) -> Event:
        return next(self.events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.events.close()
