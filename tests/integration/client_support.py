"""The two clients of Python under one set of tests: the one that is awaited looks here as if it waited."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gateway_harness import Background, RunningGateway

import vqd

KINDS = ("waits", "awaited")
AWAITED = (vqd.AsyncClient, vqd.AsyncJob, vqd.AsyncEvents)


class Waited:
    """An asynchronous client, job or stream, used as its blocking twin: every call runs on a loop in a thread."""

    def __init__(self, thing: Any, background: Background) -> None:
        self.thing, self.background = thing, background

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.thing, name)
        return self.calling(value) if callable(value) else value

    def calling(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            async def run() -> Any:
                value = method(*given, **named)
                return await value if hasattr(value, "__await__") else value

            return self.wrapped(self.background.call(run(), limit_s=60))

        return call

    def wrapped(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.wrapped(each) for each in value]
        return Waited(value, self.background) if isinstance(value, AWAITED) else value

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.calling(self.thing.__anext__)()
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> "Waited":
        self.calling(self.thing.__aenter__)()
        return self

    def __exit__(self, *error: Any) -> None:
        self.calling(self.thing.__aexit__)(*error)


def client_of(kind: str, url: str, **options: Any) -> Any:
    """A ``vqd.Client``, or what looks like one."""
    if kind == "waits":
        return vqd.Client(url, **options)
    background = Background()

    async def make() -> vqd.AsyncClient:
        return vqd.AsyncClient(url, **options)

    return Waited(background.call(make()), background)


@pytest.fixture(name="kind", params=KINDS)
def either_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="client")
def either_client(kind: str, gateway: RunningGateway) -> Iterator[Any]:
    with client_of(kind, gateway.url) as client:
        yield client


class Aside:
    """A call in a thread of its own: its value, or the error that it ended with."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run, args=(call,))
        self.thread.start()

    def run(self, call: Callable[[], Any]) -> None:
        try:
            self.value = call()
        except BaseException as error:  # whatever it is, the test looks at it
            self.error = error

    def join(self) -> Any:
        """Raises the error."""
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.value
