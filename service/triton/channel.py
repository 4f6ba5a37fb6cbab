"""A gRPC channel to Triton, and the calls that are under way on it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tritonclient.grpc.aio import InferenceServerClient

T = TypeVar("T")

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Channels of one process share a TCP connection unless told not to: a retry must get a fresh one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Triton is a part of this service: a company's proxy, which gRPC takes even to 127.0.0.1, is not the way there.
    ("grpc.enable_http_proxy", 0),
]


class Channel:
    """One gRPC channel and the calls under way on it, which are left to end: Triton 2.51 dies of cancelled calls."""

    def __init__(self, url: str) -> None:
        self.client = InferenceServerClient(url, channel_args=OPTIONS)
        self.calls: set[asyncio.Task[Any]] = set()

    def start(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(call, name="triton call")
        self.calls.add(task)
        task.add_done_callback(self.ended)
        return task

    def ended(self, task: asyncio.Task[Any]) -> None:
        self.calls.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that gave up never looks at it

    async def close(self) -> None:
        """Wait until nothing is under way, then close."""
        if self.calls:
            await asyncio.wait(self.calls)
        await self.client.close()
