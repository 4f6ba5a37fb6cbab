"""What the caller's webhooks are signed with."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from service.errors import NotFound
from service.gateway.access.identity import Caller
from service.gateway.schemas import Answer
from service.gateway.state import GatewayState
from service.gateway.webhooks.signing import secrets_of

router = APIRouter(tags=["jobs"])


class WebhookSecret(Answer):
    secret: str = Field(description="For a library of Standard Webhooks; each API key has its own.")


@router.get("/webhooks/secret", summary="What your webhooks are signed with", response_model=WebhookSecret)
async def read_webhook_secret(gateway: GatewayState, caller: Caller) -> Response:
    """404 when this service sends none."""
    if not gateway.settings.webhook_secret:
        raise NotFound("this service sends no webhooks")
    newest, *_ = secrets_of(gateway.settings.webhook_secret, caller.account.owner)
    told = WebhookSecret(secret=newest)
    return JSONResponse(told.model_dump(), headers={"Cache-Control": "no-store"})
