"""Many clients at once, as cheap as can be: one thread, a socket each."""

import contextlib
import selectors
import socket
import threading
from typing import Self

from service.gateway.server import raise_descriptor_limit


class Crowd:
    """``size`` connections to a port of this machine; each sends ``first`` and keeps what comes back."""

    def __init__(self, port: int, size: int, first: bytes) -> None:
        raise_descriptor_limit()
        self.selector, self.stopping = selectors.DefaultSelector(), threading.Event()
        self.received = [bytearray() for _ in range(size)]
        self.closed: set[int] = set()
        self.clients: list[socket.socket] = []
        for number in range(size):
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            self.clients.append(client)
            with contextlib.suppress(ConnectionError):  # it may have been sent away already
                client.sendall(first)
            client.setblocking(False)
            self.selector.register(client, selectors.EVENT_READ, number)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        while not self.stopping.is_set():
            for key, _ in self.selector.select(0.1):
                try:
                    data = self.clients[key.data].recv(65536)
                except ConnectionError:
                    data = b""
                self.received[key.data] += data
                if not data:
                    self.selector.unregister(self.clients[key.data])
                    self.closed.add(key.data)

    def say(self, data: bytes) -> None:
        """Everyone who is still connected sends this."""
        for number, client in enumerate(self.clients):
            if number not in self.closed:
                with contextlib.suppress(OSError):
                    client.sendall(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join(10)
        self.selector.close()
        for client in self.clients:
            client.close()
