"""What carries a dialogue out, and follows a job, on this thread."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, Self, TypeVar

import httpx
from httpx_sse import EventSource

from service.client.address import HERE, connection
from service.client.dialogue import CLOSED, Ask, Dialogue, Owned, Pause, Steps
from service.client.events import Event
from service.client.listening import Listening, lost, streams
from service.errors import VqdError

T = TypeVar("T")


class Driver:
    """The connections to one service at ``url``, as long as the ``with`` block, or until ``close``.

    ``api_key``: None: what VQD_API_KEY says. ``timeout_s``: how long the service may be silent on a connection.
    Raises SetupError for what is no URL, or a proxy of the environment that cannot be used.
    """

    def __init__(self, url: str = HERE, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        with connection(url, api_key, timeout_s) as options:
            self.connections = httpx.Client(**options)
        self.dialogue, self.timeout_s = Dialogue(url, timeout_s), timeout_s
        self.owned: set[Owned] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels the jobs of those who wait in ``generate`` or have not finished a ``stream``."""
        for owned in [*self.owned]:
            self.leave(owned)
        self.connections.close()

    def leave(self, owned: Owned) -> None:
        if not (owned.job and owned.job.over):
            with suppress(VqdError):  # it may be over, or the service gone
                self.run(self.dialogue.leave(owned))

    @property
    def http(self) -> httpx.Client:
        if self.connections.is_closed:
            raise VqdError(CLOSED)
        return self.connections

    def run(self, steps: Steps[T]) -> T:
        """Carry out a part of the dialogue."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self.carry_out(step)
                except httpx.RequestError as error:
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

    def listen(self, listening: Listening) -> Generator[Event, None, None]:
        while not listening.over:
            with lost, self.http.stream("GET", listening.path, **listening.connection(self.timeout_s)) as response:
                if not streams(response):
                    response.read()
                listening.accept(response)
                for heard in () if listening.over else EventSource(response).iter_sse():
                    if event := listening.hear(heard):
                        yield event
                    if listening.over or listening.stale:
                        break
            time.sleep(listening.pause_s())


class Events(Iterator[Event]):
    """Events as they come. The connection ends with the ``with`` block, with ``close``, and with the last event."""

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
