"""Look-ups of names, so many at once: one that a silent name server never answers holds a thread until it gives up."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from weakref import WeakValueDictionary

from service.errors import QuotaExceeded, RetryLater, Unavailable

FIELD = "webhook_url"
AT_ONCE, OF_ONE = 64, 8
"""Under way in all, and for one caller; those that nobody waits for any more are counted until they are over."""
RESOLVE_S = 5.0
THREADS = ThreadPoolExecutor(2 * AT_ONCE, thread_name_prefix="lookup")
"""For requests and for deliveries, which have ``Lookups`` of their own: neither ever waits for the other's."""
Resolve = Callable[[str], Awaitable[Sequence[str]]]


async def resolve(host: str) -> Sequence[str]:
    """Every address of a name, each once; over when its thread is. Raises OSError."""
    find = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(THREADS, find)
    return [*dict.fromkeys(str(place[4][0]) for place in found)]


class Lookups:
    """``wait_s``: longest wait for a place, and then for an answer."""

    def __init__(self, resolve: Resolve, wait_s: float = RESOLVE_S) -> None:
        self.resolve, self.wait_s, self.places = resolve, wait_s, asyncio.Semaphore(AT_ONCE)
        self.of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def find(self, host: str, caller: str) -> Sequence[str]:
        """The addresses of a name. Raises OSError, UnicodeError; QuotaExceeded and Unavailable, worth another try."""
        held = await self.enter(caller)
        looking = asyncio.ensure_future(self.resolve(host))
        looking.add_done_callback(partial(leave, held))
        done, _ = await asyncio.wait([looking], timeout=self.wait_s)
        if not done:
            raise Unavailable(f"{FIELD}: no name server answers for its host", retry_after_s=5)
        try:
            return looking.result()
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise Unavailable(f"{FIELD}: no name server answers for its host", retry_after_s=5) from error
            raise

    async def enter(self, caller: str) -> ExitStack:
        """Raises QuotaExceeded, Unavailable."""
        own = self.of.setdefault(caller, asyncio.Semaphore(OF_ONE))
        with ExitStack() as held:
            too_many = f"{FIELD}: the names of {OF_ONE} others of yours are still being looked up"
            await self.take(own, QuotaExceeded(too_many, retry_after_s=5))
            held.callback(own.release)
            await self.take(self.places, Unavailable(f"{FIELD}: too many names are being looked up", retry_after_s=5))
            held.callback(self.places.release)
            return held.pop_all()

    async def take(self, places: asyncio.Semaphore, otherwise: RetryLater) -> None:
        try:
            async with asyncio.timeout(self.wait_s):
                await places.acquire()
        except TimeoutError:
            raise otherwise from None


def leave(held: ExitStack, looking: asyncio.Future[Sequence[str]]) -> None:
    held.close()
    if not looking.cancelled():
        looking.exception()  # there may be nobody who waits for it any more
