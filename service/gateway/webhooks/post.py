"""One attempt to deliver a webhook."""

import asyncio
import json
from datetime import UTC, datetime
from enum import StrEnum

import httpx

from service.errors import InvalidRequest, RetryLater
from service.gateway.schemas import JobAnswer
from service.gateway.webhooks.signing import secrets_of, signed
from service.gateway.webhooks.targets import Target, Targets
from service.messages import JobView
from service.queue.webhooks import Delivery
from service.settings import Settings


class Outcome(StrEnum):
    """What came of an attempt."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"
    """410: the receiver wants no more of it."""
    REFUSED = "refused"
    """Its host is, by now, at an address that is not allowed."""


def message(view: JobView, front: str) -> str:
    """The body: the job as ``GET /jobs/{id}`` has it, with links to the pictures, which begin with ``front``."""
    answer = JobAnswer.of(view, root_path=front)
    ended = datetime.fromtimestamp((view.finished_ms or 0) / 1000, UTC)
    return json.dumps(
        {
            "type": f"job.{view.status}",
            "timestamp": ended.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": answer.model_dump(mode="json", exclude_none=True),
        }
    )


class Post:
    """Sends to the address that was checked, and to no other; follows no redirect and no proxy of the environment."""

    def __init__(self, settings: Settings, targets: Targets) -> None:
        self.settings, self.targets = settings, targets
        # No connection is kept: the pool knows them by address, and two names may be at one.
        self.client = httpx.AsyncClient(
            trust_env=False,
            verify=httpx.create_ssl_context(),
            follow_redirects=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        await self.client.aclose()

    async def deliver(self, delivery: Delivery) -> tuple[Outcome, str]:
        """What came of it, and why in words that have nothing of the URL."""
        try:
            async with asyncio.timeout(self.settings.webhook_timeout_s):
                target = await self.targets.check(delivery.url, delivery.owner or delivery.receiver)
                status = await self.send(target, delivery)
        except InvalidRequest as error:
            # A name server may be away for a while; an address that is not allowed is none to try again.
            looked_up = isinstance(error.__cause__, OSError)
            return (Outcome.FAILED if looked_up else Outcome.REFUSED), error.message
        except RetryLater as error:
            return Outcome.FAILED, str(error)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            return Outcome.FAILED, type(error).__name__
        if status == httpx.codes.GONE:
            return Outcome.GONE, "410"
        return (Outcome.DELIVERED if 200 <= status < 300 else Outcome.FAILED), str(status)

    async def send(self, target: Target, delivery: Delivery) -> int:
        """The status of the answer, of which no more is read. Raises httpx.HTTPError."""
        body = message(delivery.view, self.settings.public_url + self.settings.root_path)
        secrets = secrets_of(self.settings.webhook_secret, delivery.owner)
        headers = signed(secrets, f"msg_{delivery.job_id}", body)
        headers |= {"Content-Type": "application/json", "User-Agent": "vqd-webhooks"}
        unreached: httpx.ConnectError | httpx.ConnectTimeout | None = None
        # So that there is time for all of them, where packets to some go nowhere.
        limit_s = self.settings.webhook_timeout_s
        patience = httpx.Timeout(limit_s, connect=limit_s / (1 + len(target.addresses)))
        for address in target.addresses:
            request = self.client.build_request(
                "POST",
                target.url.copy_with(host=address),
                content=body.encode(),
                headers=headers | {"Host": target.url.netloc.decode()},
                timeout=patience,
                extensions={"sni_hostname": target.host},  # whose certificate it must have
            )
            try:
                response = await self.client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                unreached = error
                continue
            await response.aclose()
            return response.status_code
        raise unreached or httpx.ConnectError("no address")
