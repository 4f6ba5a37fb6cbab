"""From a checked request to an accepted job, and what an answer says of one, whichever API was asked."""

import hashlib
import secrets
from collections.abc import Awaitable
from typing import NamedTuple

from fastapi import Request, Response

from service.diffusion.samplers import Effort, effort_of
from service.errors import Conflict, NotDurable, NotFound, RedisUnavailable, Unavailable, VqdError
from service.gateway.access.identity import Identity
from service.gateway.access.quota import quota_headers
from service.gateway.problems import problem_of
from service.gateway.schemas import GenerateRequest
from service.gateway.state import Gateway
from service.gateway.validation import label_of
from service.messages import Job, Parameters
from service.queue.account import OverQuota
from service.queue.pixels import Pixels
from service.queue.previews import PreviewsFor
from service.queue.submissions import Accepted, Idempotency
from service.serving import ModelInfo
from service.telemetry.logs import note_ids

HUNG_UP = 499
"""Never reaches anyone; it is what the log and the metrics show (a habit of nginx)."""


def idempotency_of(body: GenerateRequest, key: str | None, owner: str) -> Idempotency | None:
    """The caller's key, with a hash of what was asked whatever its spelling."""
    if key is None:
        return None
    # Defaults are not filled in: one that changes later must not turn a retry into another request.
    canonical = body.model_dump_json(exclude_none=True)
    scoped = f"{owner} {key}" if owner else key  # no key has a space
    return Idempotency(scoped, hashlib.sha256(canonical.encode()).hexdigest())


def job_of(
    body: GenerateRequest, parameters: Parameters, model: ModelInfo, request: Request, traceparent: str | None
) -> Job:
    """The job that a request asks for. Raises InvalidFields."""
    return Job(
        id=secrets.token_hex(16),
        model=model.name,
        prompt=body.prompt or "",
        label=label_of(body, model),
        negative_prompt=body.negative_prompt,
        parameters=parameters,
        priority=body.priority,
        truncate_prompt=bool(body.truncate_prompt),
        metadata=body.metadata is not False,
        deadline_ms=None if body.deadline_s is None else max(1, round(body.deadline_s * 1000)),
        webhook_url=body.webhook_url or "",
        adapt=bool(body.adapt),
        request_id=request.state.request_id,
        traceparent=traceparent,
    )


class Work(NamedTuple):
    """A job, the pixels that it begins with, what it takes, and who is to see previews of it."""

    job: Job
    pixels: Pixels
    effort: Effort
    previews: PreviewsFor | None


async def begun(
    gateway: Gateway, request: Request, caller: Identity, body: GenerateRequest, model: ModelInfo, job: Job
) -> Work:
    """The job with what its pictures begin with; a URL that is wrong on its face is said before any is decoded.

    Raises InvalidRequest, RetryLater.
    """
    targets = gateway.webhook_targets
    receiver = None if body.webhook_url is None else targets.named(body.webhook_url)
    edit, pixels, masked = await gateway.pictures.prepare(body, model)
    request.state.place.leave()
    if receiver:
        await targets.located(receiver, caller.account.owner)
    parameters = job.parameters
    if edit and edit.strength < 1 and body.final_resample is None:  # it would draw anew what is to stay
        parameters = parameters.model_copy(update={"final_resample": False})
    effort = effort_of(parameters, model.tokens, model.timesteps, masked)
    return Work(job.model_copy(update={"edit": edit, "parameters": parameters}), pixels, effort, body.previews)


async def accept(gateway: Gateway, caller: Identity, work: Work, once: Idempotency | None) -> Accepted:
    """Put the job into the queue, and count what the caller asks for. Raises what ``Submissions.enqueue`` raises."""
    job, pixels, (evaluations, passes), previews = work
    submissions = gateway.submissions
    try:
        with gateway.tracer.inside("enqueue"):
            took = await submissions.enqueue(job, evaluations, once, caller.account, passes, pixels, previews=previews)
    except OverQuota as error:
        gateway.refusals.note(caller, error)
        raise
    except (RedisUnavailable, NotDurable):
        if once is None:  # with a key the client finds the job when it comes again
            gateway.withdrawals.add(job.id)
        raise
    if took.created:
        gateway.metrics.by_key.accept(caller.account.owner, caller.name, passes)
    elif previews:
        await submissions.ask_previews(took.job_id, previews)
    return took


async def hang_up(gateway: Gateway, job_id: str, keep: bool) -> None:
    """The client is gone, and its job with it, unless that is to be kept. Nobody is there to be told of an error."""
    if keep:
        return
    try:
        await gateway.submissions.cancel(job_id)
        gateway.metrics.hangups.inc()
    except VqdError as error:  # the job ends by itself
        gateway.metrics.redis_errors.inc(isinstance(error, RedisUnavailable))


def gone(took: Accepted) -> VqdError:
    """Why an accepted job is not there any more."""
    if took.created:  # a moment ago: a replica without it took the place of the Redis that had it
        return Unavailable(f"Redis has lost job {took.job_id}; ask again", retry_after_s=1)
    return Conflict(f"job {took.job_id} of this Idempotency-Key has expired; use a new key for a new job")


async def answered(
    gateway: Gateway, request: Request, caller: Identity, took: Accepted, answer: Awaitable[Response]
) -> Response:
    """``answer``, or the error that it ends with, and what is said with either of an accepted job."""
    job_id, created = took.job_id, took.created
    note_ids(job_id=job_id)
    gateway.tracer.annotate({"vqd.job_id": job_id, "vqd.replayed": not created})
    try:
        response = await answer
    except NotFound:
        response = problem_of(request, gone(took), job=job_id)
    except VqdError as error:
        if isinstance(error, RedisUnavailable):
            gateway.metrics.redis_errors.inc()
        response = problem_of(request, error, job=job_id)
    response.headers["X-Vqd-Job-Id"] = job_id
    response.headers.update(quota_headers(caller.account, took.allowance))
    if not created:
        gateway.metrics.replays.inc()
        response.headers["Idempotent-Replayed"] = "true"
    return response
