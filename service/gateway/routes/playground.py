"""The page where people try the service, and the files that it is made of."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.errors import NotFound
from service.gateway.assets import ASSETS

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_playground(request: Request) -> Response:
    return ASSETS["index.html"].answer(request)


@router.get("/web/{name}")
async def read_asset(name: Annotated[str, Path(max_length=64)], request: Request) -> Response:
    """Of the files that there are at the start; ``name`` never becomes a path."""
    if name not in ASSETS:
        raise NotFound(f"the playground has no file {name!r}")
    return ASSETS[name].answer(request)
