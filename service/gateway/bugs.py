"""An answer even when our code has a bug."""

import logging
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import VqdError
from service.gateway.observe import path_of
from service.gateway.problems import internal_error

log = logging.getLogger(__name__)


@dataclass
class AnswerBugs:
    """ASGI middleware: 500 for an exception, inside of what adds headers, so that a web page may read that, too."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except ClientDisconnect:
            return  # in the middle of its body: there is nobody to answer
        except Exception as error:  # whatever it is, the client gets an answer and the log the rest
            if started and isinstance(reason := error.__cause__, VqdError):  # FastAPI has no answer for it any more
                log.warning("%s %s broke off: %s", scope["method"], path_of(scope), reason)
                return  # without an end, which breaks the connection
            log.exception("%s %s met a bug", scope["method"], path_of(scope))
            if started:  # too late for another answer: break the connection, so that the client sees it is not whole
                raise
            await internal_error(Request(scope))(scope, receive, send)
