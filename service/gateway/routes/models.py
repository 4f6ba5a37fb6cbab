"""What is served."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.gateway.openai import errors
from service.gateway.openai.models import ModelList, ServedModel
from service.gateway.state import GatewayState

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="The served models, their defaults and ranges")
async def list_models(gateway: GatewayState) -> ModelList:
    models = await gateway.directory.models()
    return ModelList(object="list", data=[ServedModel.of(models[name]) for name in sorted(models)])


@router.get("/v1/models/{model}", summary="One of them", responses=errors.RESPONSES)
async def read_model(model: Annotated[str, Path(max_length=200)], gateway: GatewayState) -> ServedModel:
    return ServedModel.of(await gateway.directory.pick(model))
