"""Pictures of another size than the model's: where ``response_format: url`` of the Images API leads."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from service.gateway.openai import errors
from service.gateway.openai.rendering import Rendering, size_in
from service.gateway.openai.request import Percent
from service.gateway.openai.sizes import SIZE, size_of
from service.gateway.routes.jobs import JobId, check_owner, note_job
from service.gateway.schemas import PICTURE
from service.gateway.state import GatewayState
from service.messages import ImageFormat

router = APIRouter(prefix="/v1/images", tags=["openai"], responses=errors.RESPONSES)


@router.get(
    "/{job_id}/{index}",
    summary="One picture, scaled",
    dependencies=[Depends(note_job), Depends(check_owner)],
    response_class=Response,
    responses={200: {"content": PICTURE}},
)
async def read_scaled_image(
    job_id: JobId,
    index: Annotated[int, Path(ge=0, le=2**31)],
    gateway: GatewayState,
    size: Annotated[str, Query(pattern=SIZE.pattern)],
    output_format: ImageFormat,
    output_compression: Percent | None = None,
) -> Response:
    """What `response_format: url` leads to, when the picture is not as the model made it."""
    file = await gateway.submissions.image(job_id, index)
    scaling = gateway.settings.openai_scaling
    rendering = Rendering(size_of(size, size_in(file), 1, scaling), output_format, output_compression, scaling)
    data = await gateway.renderer.render(rendering, file)
    headers = {"Cache-Control": f"private, immutable, max-age={gateway.settings.result_ttl_s}"}
    return Response(data, headers=headers, media_type=output_format.media_type)
