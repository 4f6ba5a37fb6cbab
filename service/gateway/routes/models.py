"""What is served, and how busy it is."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.gateway.activity import Activity, read_activity
from service.gateway.cards import ModelCard, ModelList
from service.gateway.openai import errors
from service.gateway.state import GatewayState

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="The served models, their defaults and ranges")
async def list_models(gateway: GatewayState) -> ModelList:
    models = await gateway.directory.models()
    return ModelList(object="list", data=[ModelCard.of(models[name]) for name in sorted(models)])


@router.get("/v1/models/{model}", summary="One of them", responses=errors.RESPONSES)
async def read_model(model: Annotated[str, Path(max_length=200)], gateway: GatewayState) -> ModelCard:
    return ModelCard.of(await gateway.directory.pick(model))


@router.get("/v1/status", summary="What waits and what is in progress")
async def read_status(gateway: GatewayState) -> Activity:
    return await read_activity(gateway.directory, gateway.figures)
