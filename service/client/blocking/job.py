"""A job, and what can be done with it."""

from contextlib import suppress
from typing import Self

from service.client.answers import Answer
from service.client.blocking.driver import Driver, Events
from service.client.job import JobFacts
from service.client.listening import Listening, Previews
from service.client.pictures import Pictures
from service.errors import StillRunning, VqdError


class Job(JobFacts):
    """A job of a service. As a context manager it is cancelled when an error ends the block before its end."""

    def __init__(self, driver: Driver, answer: Answer) -> None:
        super().__init__(answer, driver.dialogue.place)
        self.driver = driver

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and not self.over:
            with suppress(VqdError):  # it may be over, or the service gone
                self.answer = self.driver.run(self.driver.dialogue.drop(self.id))

    def refresh(self) -> Self:
        """Ask for its present state."""
        self.answer = self.driver.run(self.driver.dialogue.look(self.id))
        return self

    def events(self, previews: Previews = False) -> Events:
        """From its beginning to its end, whatever that is. Leaving early closes the connection, and no more."""
        return Events(self.driver.listen(Listening(self, previews)))

    def wait(self, timeout_s: float | None = None) -> Pictures:
        """Its pictures, once there are. Raises what ended it otherwise, and StillRunning after ``timeout_s``.

        A service that falls silent is noticed up to a second, or a tenth of the time, too late.
        """
        return self.outcome(Listening(self, timeout_s=timeout_s))

    def outcome(self, listening: Listening) -> Pictures:
        try:
            for _ in () if self.over else self.driver.listen(listening):
                pass
        except StillRunning:  # no event came in time: it may be over all the same
            with suppress(VqdError):
                self.answer = self.driver.run(self.driver.dialogue.look(self.id, listening.until_s))
            if not self.over:
                raise
        return self.driver.run(self.driver.dialogue.pictures(self.id, listening.until_s))

    def pictures(self) -> Pictures:
        """Of a job that is over. Raises what ended it when it has none."""
        return self.driver.run(self.driver.dialogue.pictures(self.id))

    def cancel(self) -> None:
        """Raises Conflict when it is over."""
        self.answer = self.driver.run(self.driver.dialogue.cancel(self.id))
