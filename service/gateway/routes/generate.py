"""``POST /generate``: accept a job, and wait for its pictures as long as the client wants."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Request, Response
from pydantic import Field

from service.errors import DeadlinePassed
from service.gateway.acceptance import HUNG_UP, accept, answered, begun, hang_up, idempotency_of, job_of
from service.gateway.access.identity import Caller
from service.gateway.answers import accepted, finished
from service.gateway.bodies import JsonRoute
from service.gateway.document import headers_of, links_of
from service.gateway.negotiation import JSON, Form, Preference, read_accept, read_prefer
from service.gateway.problems import Absent
from service.gateway.schemas import PICTURE, GenerateRequest, JobAnswer
from service.gateway.state import Gateway, GatewayState
from service.gateway.tasks import race
from service.gateway.validation import resolve
from service.gateway.waiting import described
from service.messages import Job, JobView
from service.serving import ModelInfo

router = APIRouter(route_class=JsonRoute, tags=["pictures"])

LOOK_S = 5.0
"""Pause between two looks at a job that we wait for, and of whose end we are told: each costs a trip to Redis."""
LATE_S = 1.0
"""A worker that makes progress reports oftener, and ends a job there whose deadline has passed."""

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
    return job_of(body, parameters, model, request, traceparent), form


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
        await hang_up(gateway, job_id, keep)
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
    if idempotency_key is None:  # with one, it may be a job that was accepted
        gateway.refusals.check(caller)
    model = await gateway.directory.pick(body.model)
    job, form = new_job(body, model, request, gateway.tracer.traceparent())
    work = await begun(gateway, request, caller, body, model, job)
    took = await accept(gateway, caller, work, idempotency_of(body, idempotency_key, caller.account.owner))
    keep = preference.keep_on_hangup or idempotency_key is not None
    answer = outcome(gateway, request, took.job_id, form, preference, keep)
    response = await answered(gateway, request, caller, took, answer)
    if preference.applied:
        response.headers["Preference-Applied"] = preference.applied
    return response
