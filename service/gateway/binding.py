"""Who may reach the gateway."""

import ipaddress

from service.errors import SetupError
from service.settings import Settings


def is_loopback(host: str) -> bool:
    """True only for names and addresses that no other machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(settings: Settings) -> None:
    """Refuse to serve other machines without API keys unless told so. Raises SetupError."""
    if not (settings.allow_unauthenticated or is_loopback(settings.host)):
        raise SetupError(
            f"VQD_HOST={settings.host} can be reached from other machines and no API key is configured: "
            "bind 127.0.0.1, or set VQD_ALLOW_UNAUTHENTICATED=true to serve everyone who can connect"
        )
