"""The jobs of whoever asks."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from service.gateway.access.identity import Caller
from service.gateway.schemas import MAX_LISTED, Answer, JobAnswer
from service.gateway.state import GatewayState
from service.gateway.waiting import describe

router = APIRouter(tags=["jobs"])
USUAL = 20


class JobList(Answer):
    object: Literal["list"]
    data: list[JobAnswer]
    has_more: bool = Field(description="Whether there are others behind these: ask again, `after` the last one's id.")


@router.get("/jobs", summary="Your jobs", response_model=JobList)
async def list_jobs(
    gateway: GatewayState,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="How many at most.")] = USUAL,
    after: Annotated[
        str, Query(pattern="^[A-Za-z0-9_-]{0,64}$", description="The id of a job: only those behind it.")
    ] = "",
) -> JSONResponse:
    """Those that wait or run, newest first; then those that ended, last ended first, as long as they are kept."""
    page = await gateway.submissions.page(caller.account.owner, limit, after)
    answer = JobList(object="list", data=await describe(gateway, page.views), has_more=page.more)
    return JSONResponse(answer.model_dump(mode="json", exclude_none=True))
