"""What a client gets when our own code has a bug: an answer, or an end that cannot be taken for one."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gateway.bugs import AnswerBugs
from service.gateway.observe import Observe
from service.telemetry.metrics import GatewayMetrics
from service.telemetry.tracing import Tracer

pytestmark = pytest.mark.anyio

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def failing_after(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise RuntimeError("a bug")

    return app


async def answer(app: ASGIApp) -> list[Message]:
    """What is sent to the client of a GET /."""
    sent: list[Message] = []
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}
    scope |= {"scheme": "http", "server": ("x", 80), "query_string": b""}

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Observe(AnswerBugs(app), GatewayMetrics(CollectorRegistry()), Tracer())(scope, receive, send)
    return sent


async def test_before_the_first_byte_it_is_a_problem() -> None:
    start, body, *_ = await answer(failing_after())
    assert start["status"] == 500
    assert b"urn:vqd:problem:internal" in body["body"]


async def test_after_it_the_connection_breaks() -> None:
    """Ended in the usual way, half an answer would look like a whole one."""
    with pytest.raises(RuntimeError, match="a bug"):
        await answer(failing_after(START))
