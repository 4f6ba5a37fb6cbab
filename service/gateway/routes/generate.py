"""``POST /generate``: accept a job, and wait for its pictures as long as the client wants."""

import asyncio
import hashlib
import secrets
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Body, Depends, Header, Request, Response
from pydantic import Field

from service.diffusion.samplers import Effort, effort_of
from service.errors import Conflict, DeadlinePassed, NotDurable, NotFound, RedisUnavailable, VqdError
from service.gateway.access.identity import Caller, Identity
from service.gateway.access.quota import quota_headers
from service.gateway.answers import accepted, finished
from service.gateway.bodies import JsonRoute
from service.gateway.document import headers_of, links_of
from service.gateway.negotiation import JSON, Form, Preference, read_accept, read_prefer
from service.gateway.problems import Absent, problem_of
from service.gateway.schemas import PICTURE, GenerateRequest, JobAnswer
from service.gateway.state import Gateway, GatewayState
from service.gateway.tasks import race
from service.gateway.validation import label_of, resolve
from service.gateway.waiting import described
from service.messages import Job, JobView, ModelInfo
from service.queue.account import OverQuota
from service.queue.pixels import Pixels
from service.queue.submissions import Accepted, Idempotency
from service.telemetry.logs import note_ids

router = APIRouter(route_class=JsonRoute, tags=["pictures"])

LOOK_S = 5.0
"""Pause between two looks at a job that we wait for, and of whose end we are told: each costs a trip to Redis."""
LATE_S = 1.0
"""A worker that makes progress reports oftener, and ends a job there whose deadline has passed."""
HUNG_UP = 499
"""Never reaches anyone; it is what the log and the metrics show (a habit of nginx)."""

EXAMPLES = {
    "least": {"summary": "Only a prompt", "value": {"prompt": "a red circle on a white background"}},
    "paper": {
        "summary": "The knobs of Improved VQ-Diffusion",
        "value": {
            "prompt": "a blue square beside a green triangle",
            "guidance_scale": 3.0,
            "purity_r": 1.0,
            "tokens_per_step": 4,
            "seed": 7,
            "n": 2,
            "format": "webp",
        },
    },
}
FACTS = ("Model", "Seed", "Image-Index", "Tokens-Sha256", "Parameters", "Timings", "Dtype", "Backend")
OF_A_PICTURE = ("Content-Disposition", *(f"X-Vqd-{fact}" for fact in FACTS))
OF_ANY_ANSWER = ("X-Vqd-Job-Id", "Preference-Applied", "Idempotent-Replayed", "RateLimit-Policy", "RateLimit")
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": JobAnswer,
        "description": "The pictures: in JSON, or one picture's bytes when Accept asks for an image type.",
        "content": PICTURE,
        "headers": headers_of(*OF_ANY_ANSWER, *OF_A_PICTURE),
        "links": links_of("read_job") | links_of("read_image", index="$response.body#/images/0/index"),
    },
    202: {
        "model": JobAnswer,
        "description": "Accepted and not finished yet: follow Location.",
        "headers": headers_of("Location", "Retry-After", *OF_ANY_ANSWER),
        "links": links_of("read_job", "read_events", "cancel_job"),
    },
}

Asked = Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)]
IdempotencyKey = Annotated[
    Annotated[str, Field(pattern="^[!-~]{1,255}$")] | Absent,
    Header(alias="Idempotency-Key", description="Retries with the same key and body get the first one's job."),
]
Prefer = Annotated[
    str | Absent,
    Header(
        alias="Prefer",
        description="`respond-async`, `wait=SECONDS`, or both with a comma (RFC 7240).",
        examples=["respond-async", "wait=10"],
    ),
]


def idempotency_of(body: GenerateRequest, key: str | None, owner: str) -> Idempotency | None:
    """The caller's key, with a hash of what was asked whatever its spelling."""
    if key is None:
        return None
    # Defaults are not filled in: one that changes later must not turn a retry into another request.
    canonical = body.model_dump_json(exclude_none=True)
    scoped = f"{owner} {key}" if owner else key  # no key has a space
    return Idempotency(scoped, hashlib.sha256(canonical.encode()).hexdigest())


async def read_preference(request: Request, gateway: GatewayState, prefer: Prefer = None) -> Preference:
    """``prefer`` is for the document: there may be several."""
    return read_prefer(",".join(request.headers.getlist("prefer")), gateway.settings.sync_wait_s)


def new_job(body: GenerateRequest, model: ModelInfo, request: Request, traceparent: str | None) -> tuple[Job, Form]:
    """The job, and the form of its answer. Raises InvalidFields, NotAcceptable."""
    accept = ",".join(request.headers.getlist("accept"))
    parameters = resolve(body, model)
    form = read_accept(accept, body.format, parameters.format, parameters.n)
    if form != JSON:
        parameters = parameters.model_copy(update={"format": form})
    job = Job(
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
    return job, form


class Work(NamedTuple):
    """A job, the pixels that it begins with, and what it takes."""

    job: Job
    pixels: Pixels
    effort: Effort


async def begun(gateway: Gateway, request: Request, body: GenerateRequest, model: ModelInfo, job: Job) -> Work:
    """The job with what its pictures begin with. Raises InvalidRequest."""
    edit, pixels, masked = await gateway.pictures.prepare(body, model)
    request.state.place.leave()
    parameters = job.parameters
    if edit and edit.strength < 1 and body.final_resample is None:  # it would draw anew what is to stay
        parameters = parameters.model_copy(update={"final_resample": False})
    effort = effort_of(parameters, model.tokens, model.timesteps, masked)
    return Work(job.model_copy(update={"edit": edit, "parameters": parameters}), pixels, effort)


async def accept(gateway: Gateway, caller: Identity, work: Work, once: Idempotency | None) -> Accepted:
    """Put the job into the queue, and count what the caller asks for. Raises what ``Submissions.enqueue`` raises."""
    job, pixels, (evaluations, passes) = work
    owner, count = caller.account.owner, gateway.metrics.by_key
    try:
        with gateway.tracer.inside("enqueue"):
            took = await gateway.submissions.enqueue(job, evaluations, once, caller.account, passes, pixels)
    except OverQuota as error:
        count.refuse(owner, caller.name, error.limit)
        raise
    except (RedisUnavailable, NotDurable):
        if once is None:  # with a key the client finds the job when it comes again
            gateway.withdrawals.add(job.id)
        raise
    if took.created:
        count.accept(owner, caller.name, passes)
    return took


async def until_hangup(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def until_terminal(gateway: Gateway, job_id: str) -> JobView:
    """The job when it has ended. Raises DeadlinePassed when it has not by its deadline, and a moment later neither."""
    late = False
    with gateway.notifier.watch(job_id, only_end=True) as watch:
        while not (view := await gateway.submissions.view(job_id)).status.terminal:
            if late:
                raise DeadlinePassed("the deadline has passed, and the job ends when its worker hears of it")
            left_s = await gateway.submissions.time_left_s(view.job)
            late = left_s == 0
            # Bounded, since a notification may be lost while Redis restarts: the job itself is the truth.
            await watch.wait(LATE_S if late else min(left_s, LOOK_S))
    return view


async def waited_for(gateway: Gateway, request: Request, job_id: str, wait_s: float) -> JobView | None:
    """The job once it has ended, the time is up, or we stop; None when the client is gone by then."""
    ending = asyncio.ensure_future(until_terminal(gateway, job_id))
    over = (ending, asyncio.sleep(wait_s), gateway.stopping.wait())
    first = await race(*over, until_hangup(request))
    if first == len(over):
        return None
    return ending.result() if first == 0 else await gateway.submissions.view(job_id)


async def outcome(
    gateway: Gateway, request: Request, job_id: str, form: Form, preference: Preference, keep: bool
) -> Response:
    """Answer for an accepted job; ``keep``: a hang-up does not cancel it."""
    if preference.wait_s > 0:
        view = await waited_for(gateway, request, job_id, preference.wait_s)
    else:
        view = await gateway.submissions.view(job_id)
    if view is None:
        if not keep:
            await gateway.submissions.cancel(job_id)
            gateway.metrics.hangups.inc()
        return Response(status_code=HUNG_UP)
    with gateway.tracer.inside("answer"):
        if view.status.terminal:
            return await finished(gateway.submissions, view, form)
        return accepted(await described(gateway, view), gateway.settings.root_path)


HOW = """Waits for the pictures up to the service's limit, or as `Prefer` says, and then answers 202 with `Location`.

A client that hangs up while waiting cancels its job, unless it sent `Idempotency-Key` or `Prefer: respond-async`.

The body may also be a form (`multipart/form-data`) of the same fields, with `image` and `mask` as files."""
SUMMARY = "Make pictures of a prompt"


@router.post("/generate", summary=SUMMARY, description=HOW, responses=RESPONSES, response_model=None)
async def generate(
    request: Request,
    body: Asked,
    preference: Annotated[Preference, Depends(read_preference)],
    gateway: GatewayState,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept the job, unless its key has one; then wait, as long as the client wants."""
    if body.webhook_url is not None:
        await gateway.webhook_targets.check(body.webhook_url)
    model = await gateway.directory.pick(body.model)
    job, form = new_job(body, model, request, gateway.tracer.traceparent())
    work = await begun(gateway, request, body, model, job)
    took = await accept(gateway, caller, work, idempotency_of(body, idempotency_key, caller.account.owner))
    job_id, created = took.job_id, took.created
    note_ids(job_id=job_id)
    gateway.tracer.annotate({"vqd.job_id": job_id, "vqd.replayed": not created})
    try:
        keep = preference.keep_on_hangup or idempotency_key is not None
        response = await outcome(gateway, request, job_id, form, preference, keep)
    except NotFound:
        expired = Conflict(f"job {job_id} of this Idempotency-Key has expired; use a new key for a new job")
        response = problem_of(request, expired, job=job_id)
    except VqdError as error:
        if isinstance(error, RedisUnavailable):
            gateway.metrics.redis_errors.inc()
        response = problem_of(request, error, job=job_id)
    response.headers["X-Vqd-Job-Id"] = job_id
    response.headers.update(quota_headers(caller.account, took.allowance))
    if preference.applied:
        response.headers["Preference-Applied"] = preference.applied
    if not created:
        gateway.metrics.replays.inc()
        response.headers["Idempotent-Replayed"] = "true"
    return response
