"""``vqd.Client``."""

import time
from collections.abc import Generator
from contextlib import suppress
from typing import Unpack

from service.client.answers import Answer
from service.client.blocking.driver import Driver, Events
from service.client.blocking.job import Job
from service.client.dialogue import wish_of
from service.client.events import Event
from service.client.fields import Fields, Options, Source, with_previews
from service.client.listening import Listening, Previews
from service.client.pictures import Pictures
from service.errors import VqdError


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
        with self.submit(prompt, timeout_s=timeout_s, **fields) as job:
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
        fields: Fields = {**options, "image": image, "mask": mask}
        return self.generate(prompt, timeout_s=timeout_s, **fields)

    def stream(self, prompt: str | None = None, *, previews: Previews = False, **fields: Unpack[Fields]) -> Events:
        """Makes pictures and says how far they are; the last event has them. Leaving early cancels the job."""

        def events() -> Generator[Event, None, None]:
            with self.submit(prompt, **with_previews(fields, previews)) as job:
                for event in job.events(previews):
                    yield event.model_copy(update={"pictures": job.pictures()}) if job.over else event

        return Events(events())

    def submit(self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]) -> Job:
        """A job that runs whether or not anybody waits. ``timeout_s``: how long to wait for a limit of the caller's."""
        wish = wish_of({"prompt": prompt, **fields})
        try:
            return Job(self, self.run(self.dialogue.submit(wish, timeout_s)))
        except VqdError:
            raise
        except BaseException:  # an interrupt: the job may exist, and nobody would ever hear its id
            with suppress(VqdError):
                self.run(self.dialogue.withdraw(wish))
            raise

    def job(self, job_id: str) -> Job:
        return Job(self, self.run(self.dialogue.look(job_id)))

    def jobs(self, limit: int = 20) -> list[Job]:
        """Yours: those that wait or run, newest first, then those that ended, last ended first."""
        return [Job(self, answer) for answer in self.run(self.dialogue.jobs(limit))]

    def models(self) -> list[Answer]:
        """The cards of the served models: what each draws from, its fields, defaults and ranges."""
        return self.run(self.dialogue.models())
