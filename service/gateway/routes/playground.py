"""The page where people try the service."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from service.gateway.assets import page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_playground() -> HTMLResponse:
    """It asks the service like any other client, and has no rights of its own."""
    return HTMLResponse(page("index.html"))
