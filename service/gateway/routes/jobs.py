"""A job after it was accepted: its state, its events, its pictures, its cancellation."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from service.errors import Conflict, NotFound
from service.gateway import previews, sse
from service.gateway.access.identity import Caller, Scope
from service.gateway.answers import failure, json_answer
from service.gateway.archive import MEDIA_TYPE, archive
from service.gateway.problems import Absent
from service.gateway.schemas import PICTURE, JobAnswer
from service.gateway.state import GatewayState
from service.gateway.waiting import described
from service.messages import Status
from service.provenance.names import disposition
from service.provenance.request import request_of
from service.telemetry.logs import note_ids

JobId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$")]


async def note_job(job_id: JobId) -> None:
    note_ids(job_id=job_id)


async def check_owner(job_id: JobId, caller: Caller, gateway: GatewayState) -> None:
    """Another's job is none, in the words for one that there never was. Raises NotFound."""
    if Scope.ADMIN not in caller.scopes and not caller.owns(await gateway.submissions.owner(job_id)):
        raise NotFound(f"no job {job_id}")


router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], dependencies=[Depends(note_job), Depends(check_owner)])
LastEventId = Annotated[
    Annotated[str, Field(pattern=r"^([0-9]{1,15}-[0-9]{1,15})?$")] | Absent,
    Header(alias="Last-Event-ID", description="Resume after this event."),
]
Preview = Annotated[
    previews.Wanted | Absent,
    Query(
        description="`true`: events carry small pictures of what is in progress; `purity`: and of how sure the model "
        "is of it. As the job's request said, if left out."
    ),
]
IfNoneMatch = Annotated[
    str | Absent, Header(alias="If-None-Match", description="ETag of the picture that the client has.")
]


@router.get("", summary="State of a job", response_model=JobAnswer)
async def read_job(job_id: JobId, gateway: GatewayState) -> Response:
    return json_answer(await described(gateway, await gateway.submissions.view(job_id)))


@router.get(
    "/events",
    summary="Progress as Server-Sent Events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {sse.MEDIA_TYPE: sse.CONTENT}},
        204: {"description": "Nothing more will come."},
    },
)
async def read_events(
    job_id: JobId, gateway: GatewayState, last_event_id: LastEventId = None, preview: Preview = None
) -> Response:
    """Events `progress`, then one of `succeeded`, `failed`, `cancelled`; then the stream ends."""
    view, after = await gateway.submissions.view(job_id), last_event_id or ""
    # 204 is what stops a browser's EventSource from coming back for ever.
    if view.status.terminal and not await gateway.submissions.events(job_id, after):
        return Response(status_code=204)
    gateway.feeds.check_room(gateway.settings.max_streams)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    wanted = await previews.begin(gateway.submissions, view, preview)
    events = sse.stream(gateway.feeds, job_id, after, wanted)
    return StreamingResponse(events, media_type=sse.MEDIA_TYPE, headers=headers)


@router.delete("", summary="Cancel a job", response_model=JobAnswer)
async def cancel_job(job_id: JobId, gateway: GatewayState) -> Response:
    """A queued job never runs; a running one stops within one call of the model. 409 when it is already over."""
    before = (await gateway.submissions.view(job_id)).status
    status = before if before.terminal else await gateway.submissions.cancel(job_id)
    # It may have finished between the two calls.
    if before.terminal or status in (Status.SUCCEEDED, Status.FAILED):
        raise Conflict(f"the job is over: {status}")
    return json_answer(JobAnswer.of(await gateway.submissions.view(job_id), root_path=gateway.settings.root_path))


@router.get(
    "/images.zip",
    summary="All pictures",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def read_archive(job_id: JobId, gateway: GatewayState) -> Response:
    """As one ZIP, as long as the job is kept. 409 while there are none."""
    view = await gateway.submissions.view(job_id)
    if not view.status.terminal:
        raise Conflict(f"the job has no pictures yet: {view.status}")
    if view.status is not Status.SUCCEEDED:
        raise failure(view)
    first = await gateway.submissions.image(job_id, 0)
    headers = {"Content-Disposition": f'attachment; filename="{job_id}.zip"'}
    return StreamingResponse(archive(gateway.submissions, view, first), headers=headers, media_type=MEDIA_TYPE)


@router.get(
    "/images/{index}",
    summary="One picture",
    response_class=Response,
    responses={200: {"content": PICTURE}, 304: {"description": "As the client has it, by If-None-Match."}},
)
async def read_image(
    job_id: JobId, index: Annotated[int, Path(ge=0, le=2**31)], gateway: GatewayState, if_none_match: IfNoneMatch = None
) -> Response:
    """The encoded bytes, as long as the job is kept."""
    data = await gateway.submissions.image(job_id, index)
    view = await gateway.submissions.view(job_id)
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": f"private, immutable, max-age={gateway.settings.result_ttl_s}"}
    if etag in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = disposition(request_of(view.job, index))
    return Response(data, headers=headers, media_type=view.job.parameters.format.media_type)
