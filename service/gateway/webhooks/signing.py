"""Signatures as Standard Webhooks has them; the receiver checks them with one of its libraries.

Every API key has a secret of its own, made from the service's: whoever gets webhooks cannot sign those of others.
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from standardwebhooks import Webhook

from service.settings import listed

PREFIX = "whsec_"


def secrets_of(setting: str, owner: str) -> list[str]:
    """What the webhooks of this API key are signed with, the newest first, which its holder is told.

    ``setting``: VQD_WEBHOOK_SECRET, of one secret or several; ``owner``: the key's id.
    """
    return [secret_of(service_secret, owner) for service_secret in listed(setting)]


def secret_of(service_secret: str, owner: str) -> str:
    """What is made of one of the service's."""
    key = base64.b64decode(service_secret.removeprefix(PREFIX))
    own = hmac.new(key, b"vqd webhooks of " + owner.encode(), hashlib.sha256).digest()
    return PREFIX + base64.b64encode(own).decode()


def signed(secrets: list[str], message_id: str, body: str, now: datetime | None = None) -> dict[str, str]:
    """The three headers of a message, with a signature for each secret, any of which is enough for a receiver."""
    now = now or datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }
