"""Name servers that do not answer: what one caller's may hold of the look-ups, and what others hear."""

import asyncio
import gc
import socket
from collections.abc import Sequence

import pytest

from service.errors import QuotaExceeded, Unavailable
from service.gateway.webhooks.lookups import AT_ONCE, OF_ONE, Lookups

pytestmark = pytest.mark.anyio
FOUND = ["1.1.1.1"]


class Names:
    """Those that begin with "silent" are answered when ``answer`` is set."""

    def __init__(self) -> None:
        self.answer, self.under_way = asyncio.Event(), 0

    async def __call__(self, host: str) -> Sequence[str]:
        self.under_way += 1
        if host.startswith("silent"):
            await self.answer.wait()
        self.under_way -= 1
        return FOUND


def impatient(names: Names) -> Lookups:
    return Lookups(names, wait_s=0.05)


async def ask(lookups: Lookups, count: int, caller: str) -> list[Sequence[str] | BaseException]:
    asked = (lookups.find(f"silent-{number}.example", caller) for number in range(count))
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_a_name_server_that_is_silent_is_worth_another_try() -> None:
    with pytest.raises(Unavailable, match="webhook_url: no name server answers") as caught:
        await impatient(Names()).find("silent.example", "alice")
    assert caught.value.retry_after_s == 5


async def test_silent_names_of_one_hold_up_its_own_only() -> None:
    """Also when nobody waits for them any more, as each still has its thread."""
    names = Names()
    lookups = impatient(names)
    assert {type(error) for error in await ask(lookups, OF_ONE, "alice")} == {Unavailable}
    with pytest.raises(QuotaExceeded, match=f"webhook_url: the names of {OF_ONE} others") as caught:
        await lookups.find("quick.example", "alice")
    assert caught.value.retry_after_s == 5
    assert names.under_way == OF_ONE
    assert await lookups.find("quick.example", "bob") == FOUND
    names.answer.set()
    assert await lookups.find("quick.example", "alice") == FOUND


async def test_one_that_hung_up_holds_its_place_as_long() -> None:
    names = Names()
    lookups = impatient(names)
    waiting = asyncio.gather(*(lookups.find("silent.example", "alice") for _ in range(OF_ONE)))
    async with asyncio.timeout(10):
        while names.under_way < OF_ONE:
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(QuotaExceeded):
        await lookups.find("quick.example", "alice")


async def test_many_at_once_wait_for_each_other() -> None:
    names = Names()
    asking = asyncio.ensure_future(ask(Lookups(names), 5 * OF_ONE, "alice"))
    async with asyncio.timeout(10):
        while names.under_way < OF_ONE:
            await asyncio.sleep(0)
    names.answer.set()
    assert await asking == [FOUND] * (5 * OF_ONE)


async def test_all_together_are_bounded_too() -> None:
    names = Names()
    lookups = impatient(names)
    for number in range(AT_ONCE // OF_ONE):
        await ask(lookups, OF_ONE, f"key-{number}")
    with pytest.raises(Unavailable, match="webhook_url: too many names"):
        await lookups.find("quick.example", "bob")
    assert names.under_way == AT_ONCE
    names.answer.set()
    assert await lookups.find("quick.example", "bob") == FOUND
    for _ in range(20):
        await asyncio.sleep(0)
    gc.collect()  # errors hold the frames that they went through
    assert not lookups.of, "nothing is kept of those who wait for nothing"


@pytest.mark.parametrize(
    ("code", "raised"), [(socket.EAI_AGAIN, Unavailable), (socket.EAI_NONAME, socket.gaierror)], ids=["away", "no such"]
)
async def test_a_name_server_that_says_no_is_told_from_one_that_is_away(code: int, raised: type[Exception]) -> None:
    async def resolve(_: str) -> Sequence[str]:
        raise socket.gaierror(code, "marked-zq9w")

    lookups = Lookups(resolve, wait_s=0.05)
    for _ in range(2 * OF_ONE):  # and its place is free again
        with pytest.raises(raised) as caught:
            await lookups.find("a.example", "alice")
    assert raised is not Unavailable or "zq9w" not in str(caught.value)
