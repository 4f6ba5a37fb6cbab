"""The API's description, for machines and for people."""

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from service.errors import RedisUnavailable
from service.gateway.access.described import without_need
from service.gateway.access.identity import EVERYBODY, Caller, Scope
from service.gateway.document import document, with_served
from service.gateway.state import GatewayState
from service.messages import ModelInfo

router = APIRouter(include_in_schema=False)
HERE = "openapi.json"


@router.get("/openapi.json")
async def read_document(request: Request, gateway: GatewayState, caller: Caller) -> JSONResponse:
    """With what the served models take, as far as it is known, for whoever may know it."""
    whole, models = document(request.app), dict[str, ModelInfo]()
    if Scope.READ.within(caller.scopes):
        try:
            models = await gateway.directory.models()
        except RedisUnavailable:
            gateway.metrics.redis_errors.inc()
    if caller is EVERYBODY:
        whole = without_need(whole)
    return JSONResponse(with_served(whole, [*models.values()], gateway.settings.root_path))


@router.get("/docs")
async def show_swagger() -> HTMLResponse:
    return get_swagger_ui_html(openapi_url=HERE, title="vqd")


@router.get("/redoc")
async def show_redoc() -> HTMLResponse:
    return get_redoc_html(openapi_url=HERE, title="vqd")
