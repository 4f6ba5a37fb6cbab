"""``/v1/images``: the Images API of OpenAI."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from service.errors import StillRunning
from service.gateway import sse
from service.gateway.acceptance import HUNG_UP, accept, answered, begun, hang_up, idempotency_of, job_of
from service.gateway.access.identity import Caller, Identity
from service.gateway.answers import failure
from service.gateway.bodies import JsonRoute
from service.gateway.document import headers_of
from service.gateway.openai import errors
from service.gateway.openai.answers import ImagesAnswer, in_base64
from service.gateway.openai.rendering import Rendering
from service.gateway.openai.request import EditRequest, ImagesRequest, pick
from service.gateway.openai.sizes import Size, size_of
from service.gateway.openai.stream import EDIT, GENERATION, Stream
from service.gateway.problems import problem_of
from service.gateway.routes.generate import IdempotencyKey, waited_for
from service.gateway.state import Gateway, GatewayState
from service.gateway.validation import resolve
from service.messages import JobView, Parameters, Status
from service.serving import ModelInfo

router = APIRouter(prefix="/v1/images", route_class=JsonRoute, tags=["openai"], responses=errors.RESPONSES)

EXAMPLES = {
    "openwebui": {
        "summary": "As Open WebUI asks",
        "value": {"model": "dall-e-2", "prompt": "a red circle", "n": 1, "size": "512x512"},
    },
    "stream": {"summary": "A stream", "value": {"prompt": "a red circle", "stream": True, "partial_images": 2}},
}
KINDS, STAGES = (GENERATION, EDIT), ("partial_image", "completed")
PATHS = ("/v1/images/generations", "/v1/images/edits")
"""Where pictures may be sent."""
EVENTS: dict[str, Any] = {
    "schema": {"description": "As for the events of a job."},
    "itemSchema": {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": [*(f"{kind}.{stage}" for kind in KINDS for stage in STAGES), "error"]},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesAnswer,
        "description": "The pictures; with `stream` as events.",
        "content": {sse.MEDIA_TYPE: EVENTS},
        "headers": headers_of("X-Vqd-Job-Id", "Idempotent-Replayed", "RateLimit-Policy", "RateLimit"),
    }
}
Asked = Annotated[ImagesRequest, Body(openapi_examples=EXAMPLES)]


def rendering_of(body: ImagesRequest, parameters: Parameters, model: ModelInfo, gateway: Gateway) -> Rendering:
    """Raises InvalidFields."""
    image_format = body.output_format or parameters.format
    scaling = gateway.settings.openai_scaling
    size = size_of(body.size, Size(model.image_width, model.image_height), parameters.n, scaling)
    return Rendering(size, image_format, body.quality_for(image_format), scaling)


def address_of(request: Request, gateway: Gateway, job_id: str, place: int, rendering: Rendering) -> str:
    """Absolute, as their clients need it. What has to be rendered is, when somebody asks for it."""
    origin = gateway.settings.public_url or f"{request.url.scheme}://{request.headers['host']}"
    here = origin + gateway.settings.root_path
    if not rendering.needed:
        return f"{here}/jobs/{job_id}/images/{place}"
    quality = "" if rendering.quality is None else f"&output_compression={rendering.quality}"
    query = f"size={rendering.size}&output_format={rendering.format}{quality}"
    return f"{here}/v1/images/{job_id}/{place}?{query}"


async def shown(gateway: Gateway, view: JobView, how: Rendering) -> list[dict[str, str]]:
    """The pictures of a finished job in base64."""
    files = await gateway.submissions.images(view)
    return [{"b64_json": in_base64(await gateway.renderer.rendered(how, file))} for file in files]


async def finished(
    gateway: Gateway, request: Request, view: JobView, model: ModelInfo, rendering: Rendering, url: bool
) -> Response:
    """The answer of a job that has ended. Raises what ``failure`` says when it has no pictures."""
    if view.status is not Status.SUCCEEDED or view.result is None:
        raise failure(view)
    if url:
        places = range(len(view.result.images))
        pictures = [{"url": address_of(request, gateway, view.job.id, place, rendering)} for place in places]
    else:
        pictures = await shown(gateway, view, rendering)
    answer = ImagesAnswer.of(view, model, rendering, pictures)
    return JSONResponse(answer.model_dump(mode="json", exclude_none=True))


def still_running(request: Request, gateway: Gateway, job_id: str, keep: bool) -> Response:
    """Their clients know no 202. Asking again is of use to one whose Idempotency-Key finds this job again."""
    place = f"{gateway.settings.root_path}/jobs/{job_id}"
    again = "ask again with the same Idempotency-Key" if keep else "or send an Idempotency-Key, and ask again with it"
    error = StillRunning(f"the pictures are still being made: GET {place}; {again}")
    response = problem_of(request, error, job=job_id)
    response.headers.update({"Location": place, "Retry-After": "1"})
    response.headers[errors.SHOULD_RETRY] = str(keep).lower()
    return response


async def outcome(
    gateway: Gateway, request: Request, job_id: str, model: ModelInfo, how: tuple[Rendering, bool], keep: bool
) -> Response:
    """The pictures of an accepted job; ``keep``: a hang-up does not cancel it. Raises VqdError."""
    view = await waited_for(gateway, request, job_id, gateway.settings.sync_wait_s)
    if view is None:
        await hang_up(gateway, job_id, keep)
        return Response(status_code=HUNG_UP)
    if not view.status.terminal:
        return still_running(request, gateway, job_id, keep)
    with gateway.tracer.inside("answer"):
        return await finished(gateway, request, view, model, *how)


async def streamed(stream: Stream) -> Response:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream.frames(), media_type=sse.MEDIA_TYPE, headers=headers)


async def make(
    request: Request, body: ImagesRequest, gateway: Gateway, caller: Identity, idempotency_key: str | None
) -> Response:
    """Accept the job, unless its key has one, and answer with its pictures, or with a stream of what becomes of it."""
    keep = idempotency_key is not None
    if not keep:  # with a key, it may be a job that was accepted
        gateway.refusals.check(caller)
    model = await pick(gateway.directory, body.checked().model)
    parameters = resolve(body, model)
    rendering = rendering_of(body, parameters, model, gateway)
    parameters = parameters.model_copy(update={"format": rendering.made_in})
    job = job_of(body, parameters, model, request, gateway.tracer.traceparent())
    if body.stream:
        gateway.feeds.check_room(gateway.settings.max_streams)
    work = await begun(gateway, request, caller, body, model, job)
    took = await accept(gateway, caller, work, idempotency_of(body, idempotency_key, caller.account.owner))
    if body.stream:
        kind = EDIT if body.image else GENERATION
        answer = streamed(Stream(gateway, request, took, model, rendering, kind, keep, body.partial_images or 0))
    else:
        how = (rendering, body.response_format == "url")
        answer = outcome(gateway, request, took.job_id, model, how, keep)
    return await answered(gateway, request, caller, took, answer)


@router.post("/generations", summary="Pictures, as OpenAI has it", responses=RESPONSES, response_model=None)
async def create_image(
    request: Request,
    body: Asked,
    gateway: GatewayState,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """For the clients of OpenAI's Images API. Waits for the pictures up to the service's limit, and then answers 504.

    A client that hangs up cancels its job, unless it sent `Idempotency-Key`.
    """
    return await make(request, body, gateway, caller, idempotency_key)


@router.post("/edits", summary="A picture changed, as OpenAI has it", responses=RESPONSES, response_model=None)
async def edit_image(
    request: Request,
    body: EditRequest,
    gateway: GatewayState,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The same with `image`, and a `mask` if only a part is to change; a form (`multipart/form-data`) or JSON."""
    return await make(request, body, gateway, caller, idempotency_key)
