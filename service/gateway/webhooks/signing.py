"""Signatures as Standard Webhooks has them; the receiver checks them with one of its libraries.

Every API key has a secret of its own, made from the service's: whoever gets webhooks cannot sign those of others.
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"


def secret_of(service_secret: str, owner: str) -> str:
    """What the webhooks of this API key are signed with, as its holder is told; ``owner`` is its id."""
    key = base64.b64decode(service_secret.removeprefix(PREFIX))
    own = hmac.new(key, b"vqd webhooks of " + owner.encode(), hashlib.sha256).digest()
    return PREFIX + base64.b64encode(own).decode()


def signed(secret: str, message_id: str, body: str, now: datetime | None = None) -> dict[str, str]:
    """The three headers of a message."""
    now = now or datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
    }
