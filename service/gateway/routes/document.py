"""The API's description, for machines and for people."""

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from service.errors import RedisUnavailable
from service.gateway.document import document, with_served
from service.gateway.state import GatewayState

router = APIRouter(include_in_schema=False)
HERE = "openapi.json"


@router.get("/openapi.json")
async def read_document(request: Request, gateway: GatewayState) -> JSONResponse:
    """With what the served models take, as far as it is known."""
    try:
        models = await gateway.directory.models()
    except RedisUnavailable:
        gateway.metrics.redis_errors.inc()
        models = {}
    return JSONResponse(with_served(document(request.app), [*models.values()], gateway.settings.root_path))


@router.get("/docs")
async def show_swagger() -> HTMLResponse:
    return get_swagger_ui_html(openapi_url=HERE, title="vqd")


@router.get("/redoc")
async def show_redoc() -> HTMLResponse:
    return get_redoc_html(openapi_url=HERE, title="vqd")
