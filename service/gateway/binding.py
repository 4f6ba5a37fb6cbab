"""Who may reach the gateway."""

import logging
from collections.abc import Awaitable, Callable

from service.errors import RedisUnavailable
from service.settings import Settings
from service.sockets import is_loopback

log = logging.getLogger(__name__)


async def check_binding(settings: Settings, any_exist: Callable[[], Awaitable[bool]]) -> None:
    """Warn who is served, where other machines reach us: everyone, or, as long as there is no key, nobody."""
    if is_loopback(settings.host):
        return
    if settings.allow_unauthenticated:
        log.warning(
            "VQD_HOST=%s can be reached from other machines, and VQD_ALLOW_UNAUTHENTICATED=true serves all of them",
            settings.host,
        )
        return
    try:
        exist = await any_exist()
    except RedisUnavailable as error:
        log.warning("whether there are API keys is not known yet: %s", error)
        return
    if not exist:
        log.warning(
            "VQD_HOST=%s can be reached from other machines and there is no API key: nobody is served until "
            "`vqd keys create` makes one, or VQD_KEY_FILE names a file with some",
            settings.host,
        )
