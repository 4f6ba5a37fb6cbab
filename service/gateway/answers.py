"""What a client gets for a job it asked for."""

import json
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import JSONResponse

from service.errors import Conflict, InferenceFailed, VqdError
from service.gateway.negotiation import JSON, Form
from service.gateway.schemas import JobAnswer
from service.messages import JobView, Result, Status
from service.provenance.names import disposition
from service.provenance.request import parameters_of, request_of
from service.queue.submissions import Submissions


def failure(view: JobView) -> VqdError:
    """Why a terminal job has no pictures, as an error."""
    if view.status is Status.CANCELLED:
        return Conflict("the job was cancelled")
    return view.failure.error() if view.failure else InferenceFailed("the job failed and left no reason")


def accepted(answer: JobAnswer, root_path: str) -> Response:
    headers = {"Location": f"{root_path}/jobs/{answer.id}", "Retry-After": "1"}
    return json_answer(answer, 202, headers)


def json_answer(answer: JobAnswer, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(answer.model_dump(mode="json", exclude_none=True), status, headers)


async def finished(submissions: Submissions, view: JobView, form: Form) -> Response:
    """The pictures of a terminal job. Raises what ``failure`` says when there are none."""
    if view.status is not Status.SUCCEEDED or view.result is None:
        raise failure(view)
    pictures = await submissions.images(view)
    if form == JSON or len(pictures) != 1:
        return json_answer(JobAnswer.of(view, pictures))
    return picture(view, view.result, pictures[0])


def picture(view: JobView, result: Result, data: bytes) -> Response:
    """The only image's bytes, and in headers what the JSON answer would have said."""
    parameters = view.job.parameters
    headers = {
        "Content-Disposition": disposition(request_of(view.job, 0)),
        "X-Vqd-Model": quote(view.job.model),  # in ASCII, as headers must be
        "X-Vqd-Seed": str(parameters.seed),
        "X-Vqd-Image-Index": str(parameters.image_index),
        "X-Vqd-Tokens-Sha256": result.images[0].tokens_sha256,
        "X-Vqd-Parameters": json.dumps(parameters_of(parameters), separators=(",", ":")),
        "X-Vqd-Timings": result.timings.model_dump_json(),
    }
    if result.dtype:
        headers["X-Vqd-Dtype"] = result.dtype
    if result.backend:
        headers["X-Vqd-Backend"] = result.backend
    if result.warnings:
        headers["X-Vqd-Warnings"] = json.dumps(result.warnings)  # in ASCII, likewise
    return Response(data, headers=headers, media_type=parameters.format.media_type)
