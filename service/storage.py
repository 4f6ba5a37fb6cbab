"""S3-compatible storage for finished pictures: one bucket, reached through the extra ``s3``.

Who may use it is found as AWS's own tools do in a container: the variables ``AWS_ACCESS_KEY_ID`` and
``AWS_SECRET_ACCESS_KEY``, a web identity, a pod's or a machine's role. None of it passes through our hands.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from service.errors import SetupError, StorageUnavailable
from service.settings import Settings

if TYPE_CHECKING:  # without the setting a process neither needs nor loads it
    from obstore.store import RetryConfig, S3Store

log = logging.getLogger(__name__)

RETRIES = 3
PROBE, NOTHING = "vqd-probe", "vqd-nothing"
"""The object that a worker writes at its start, to see that it may, and one that is never there."""
ASKED = re.compile(r"Error performing (\w+ https?://[^/?\s]+)")
ANSWERED = [re.compile(way) for way in (r"<Code>(\w+)</Code>", r"status code: (\d{3} [\w ]+)", r" - ([^:<\n]+)")]
"""The best of what there is: S3's own word, else HTTP's, else the library's."""
REFUSED = re.compile(r"status code: 4(?!08|29)\d\d|incorrectly configured region")
"""An answer that time does not heal: a wrong bucket, wrong credentials, no right."""


class Bucket:
    """``on_read`` is told how long each reading took, and ``on_failed`` of each that came to nothing."""

    def __init__(self, store: "S3Store", settings: Settings) -> None:
        from obstore.exceptions import BaseError  # noqa: PLC0415

        self.store, self.fault, self.name = store, BaseError, settings.s3_bucket
        self.prefix = f"{settings.s3_prefix}/" if settings.s3_prefix else ""
        self.limit_s = settings.s3_timeout_s
        self.on_read: Callable[[float], None] = lambda seconds: None
        self.on_failed: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None without ``VQD_S3_BUCKET``. Nothing is sent yet. Raises SetupError without the extra."""
        if not settings.s3_bucket:
            return None
        try:
            return cls(connect(settings), settings)
        except ModuleNotFoundError as error:
            raise SetupError(
                f"VQD_S3_BUCKET is set and the package {error.name!r} is missing: pip install 'vqd[s3]'"
            ) from None

    async def put(self, key: str, data: bytes, headers: Mapping[str, str], limit_s: float = float("inf")) -> None:
        """Store an object, whole or not at all; tried again for as long as there is time. Raises StorageUnavailable."""
        async with self.answer(min(limit_s, self.limit_s)):
            await self.store.put_async(key, data, attributes={**headers}, use_multipart=False)

    async def get(self, key: str) -> bytes | None:
        """An object; None when there is none, or no longer. Raises StorageUnavailable."""
        began_s = time.monotonic()
        try:
            async with self.answer(self.limit_s):
                data = await self.read(key)
        except StorageUnavailable:
            self.on_failed()
            raise
        self.on_read(time.monotonic() - began_s)
        return data

    async def read(self, key: str) -> bytes | None:
        try:
            return bytes(await (await self.store.get_async(key)).bytes_async())
        except FileNotFoundError as error:
            if "<Code>NoSuchKey<" not in str(error):  # no bucket, or no storage at all
                raise
            return None

    async def check_writable(self) -> None:
        """At the start of who writes. A store that does not answer is no obstacle: it may come up later.

        Raises SetupError when it answers that it will not.
        """
        try:
            await self.put(self.prefix + PROBE, b"", {"Content-Type": "text/plain"})
        except StorageUnavailable as error:
            self.complain(error)

    async def check_readable(self) -> None:
        """The same at the start of who reads: it must also be told that there is no such object."""
        try:
            await self.get(self.prefix + NOTHING)
        except StorageUnavailable as error:
            self.complain(error)

    def complain(self, error: StorageUnavailable) -> None:
        if error.refused:
            raise SetupError(f"VQD_S3_BUCKET={self.name} cannot be used: {error}")
        log.warning("VQD_S3_BUCKET=%s is not known to be of use: %s", self.name, error)

    @asynccontextmanager
    async def answer(self, limit_s: float) -> AsyncIterator[None]:
        """Whatever goes wrong, and an answer that is too late, is StorageUnavailable."""
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise StorageUnavailable("S3 storage: no answer in time") from None
        except (FileNotFoundError, ValueError, self.fault) as error:  # these two are the library's, too
            # Without its cause: the library's text may hold whatever the store has answered.
            raise StorageUnavailable(in_short(str(error)), refused=bool(REFUSED.search(str(error)))) from None


def in_short(text: str) -> str:
    """What was asked and the answer, of all that the library says of an error."""
    answers = [found[1].strip() for way in ANSWERED if (found := way.search(text))]
    asked = ASKED.search(text)
    return ": ".join(["S3 storage", *([asked[1]] if asked else []), *(answers[:1] or ["it cannot be used"])])


def connect(settings: Settings) -> "S3Store":
    """Raises ModuleNotFoundError without the extra, SetupError for what the library cannot use."""
    from obstore.store import S3Store  # noqa: PLC0415

    given = {"endpoint": settings.s3_endpoint, "region": settings.s3_region}
    options: Any = {name: value for name, value in given.items() if value}
    limit = timedelta(seconds=settings.s3_timeout_s)
    retries: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": limit,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": limit / 4, "base": 2},
    }
    return S3Store(
        settings.s3_bucket,
        # A request that gets no answer leaves time for another one.
        client_options={"allow_http": settings.s3_endpoint.startswith("http://"), "timeout": limit / 2},
        retry_config=retries,
        **options,
    )
