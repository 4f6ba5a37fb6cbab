"""``vqd.Client``."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Unpack

from service.client.answers import Answer
from service.client.blocking.driver import Driver, Events
from service.client.blocking.job import Job
from service.client.dialogue import Owned, Wish, wish_of
from service.client.events import Event
from service.client.fields import Fields, Options, Source, of_edit, with_previews
from service.client.listening import Listening, Previews, end_of
from service.client.pictures import Pictures


class Client(Driver):
    """One service at ``url``. Every fault leaves as the VqdError that the service raised, or as Unavailable.

    ``api_key``: None: what VQD_API_KEY says. ``timeout_s``: how long the service may be silent on a connection.
    Raises SetupError for what is no URL, or a proxy of the environment that cannot be used.
    """

    def generate(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> Pictures:
        """The pictures, once they are made. Whatever ends the wait early, an interrupt too, cancels the job.

        Raises StillRunning after ``timeout_s``, and what the service did.
        """
        began_s = time.monotonic()
        with self.own(wish_of({"prompt": prompt, **fields}), timeout_s, began_s) as job:
            return job.outcome(Listening(job, timeout_s=timeout_s, began_s=began_s))

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
        return self.generate(prompt, timeout_s=timeout_s, **of_edit(image, mask, options))

    def stream(self, prompt: str | None = None, *, previews: Previews = False, **fields: Unpack[Fields]) -> Events:
        """Makes pictures and says how far they are; the last event has them. Leaving early cancels the job."""

        def events() -> Generator[Event, None, None]:
            with self.own(wish_of({"prompt": prompt, **with_previews(fields, previews)})) as job:
                for event in job.events(previews):
                    yield event.model_copy(update={"pictures": job.pictures()}) if job.over else event

        return Events(events())

    def submit(self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]) -> Job:
        """A job that runs whether or not anybody waits. ``timeout_s``: how long to wait for a limit of the caller's."""
        owned = Owned(wish_of({"prompt": prompt, **fields}))
        try:
            return Job(self, self.run(self.dialogue.submit(owned.wish, timeout_s)))
        except BaseException as error:  # an interrupt: the job may exist, and nobody would ever hear its id
            if self.dialogue.unanswered(error):
                self.leave(owned)
            raise

    @contextmanager
    def own(self, wish: Wish, timeout_s: float | None = None, began_s: float = 0.0) -> Iterator[Job]:
        """A job that whatever ends the block early cancels, and ``close``. No moment is between the job and the block.

        ``timeout_s``, from ``began_s`` on: how long at most until there is an answer, or a limit has passed.
        """
        owned = Owned(wish)
        self.owned.add(owned)
        try:
            answer = self.run(self.dialogue.submit(wish, timeout_s, end_of(timeout_s, began_s)))
            owned.job = job = Job(self, answer)
            yield job
        except BaseException as error:
            if owned.job or self.dialogue.unanswered(error):
                self.leave(owned)
            raise
        finally:
            self.owned.discard(owned)

    def job(self, job_id: str) -> Job:
        return Job(self, self.run(self.dialogue.look(job_id)))

    def jobs(self, limit: int = 20) -> list[Job]:
        """Yours: those that wait or run, newest first, then those that ended, last ended first."""
        return [Job(self, answer) for answer in self.run(self.dialogue.jobs(limit))]

    def models(self) -> list[Answer]:
        """The cards of the served models: what each draws from, its fields, defaults and ranges."""
        return self.run(self.dialogue.models())
