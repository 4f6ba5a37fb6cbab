"""The API's description, for machines and for people."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from service.errors import RedisUnavailable
from service.gateway.access.described import without_need
from service.gateway.access.identity import EVERYBODY, Caller, Scope
from service.gateway.assets import asset, kept, page
from service.gateway.document import document, with_served
from service.gateway.state import GatewayState
from service.serving import ModelInfo

router = APIRouter(include_in_schema=False)
DOCS = "docs"
"""Beside every page of ours, whatever prefix a proxy puts in front."""


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
    return HTMLResponse(page("docs.html"))


@router.get("/redoc")
async def lead_to_docs() -> RedirectResponse:
    """ReDoc is no page of its own any more: another megabyte for the same document, with a logo from elsewhere."""
    return RedirectResponse(DOCS)


@router.get("/assets/{digest}/{name}")
async def read_asset(
    request: Request, digest: Annotated[str, Path(pattern="^[0-9a-f]{16}$")], name: Annotated[str, Path(max_length=40)]
) -> Response:
    """A file of a page. The address of each version is its own, so that browsers keep it for ever."""
    found = asset(name)
    headers = {"ETag": f'"{found.sha256}"', "Cache-Control": kept(digest)}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.data, headers=headers, media_type=found.media_type)
