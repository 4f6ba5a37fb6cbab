"""Waiting for Redis: what counts as its time, and whose turn it is."""

import asyncio
import time

import pytest

from service.queue.patience import Slots, fair_timeout

pytestmark = pytest.mark.anyio


async def test_what_is_silent_is_given_up_in_time() -> None:
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        async with fair_timeout(0.1):
            await asyncio.Event().wait()
    assert 0.09 < time.monotonic() - began_s < 1


async def test_an_answer_that_came_while_we_were_busy_is_in_time() -> None:
    loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_later(0.01, time.sleep, 0.2)
    loop.call_later(0.02, loop.call_soon, lambda: loop.call_soon(answer.set_result, "late"))
    async with fair_timeout(0.05):
        assert await answer == "late"


async def test_nothing_is_left_behind_that_ends_another_wait() -> None:
    async with fair_timeout(0.02):
        pass
    await asyncio.sleep(0.05)


async def test_turns_come_in_order_and_never_too_many_at_once() -> None:
    turns, inside, most, order = Slots(2), 0, 0, []

    async def visit(number: int) -> None:
        nonlocal inside, most
        await turns.take()
        inside += 1
        most = max(most, inside)
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1
        turns.give()

    await asyncio.gather(*(visit(number) for number in range(10)))
    assert (order, most, turns.free) == (list(range(10)), 2, 2)


async def test_who_leaves_while_waiting_takes_no_turn_along() -> None:
    turns = Slots(1)
    await turns.take()
    leaving, staying = (asyncio.create_task(turns.take()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    turns.give()
    await asyncio.wait_for(staying, 1)
    turns.give()
    assert turns.free == 1


async def test_who_is_cancelled_with_the_turn_in_hand_gives_it_back() -> None:
    turns = Slots(1)
    await turns.take()
    waiting = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    turns.give()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert turns.free == 1


async def test_all_who_wait_can_be_told_that_it_is_in_vain() -> None:
    turns = Slots(1)
    await turns.take()
    waiting = [asyncio.create_task(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    turns.refuse(lambda: ConnectionError("silent"))
    assert [str(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == ["silent"] * 3
    turns.give()
    assert turns.free == 1
