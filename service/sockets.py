"""Listening sockets and ports."""

import socket

from service.errors import SetupError


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens at VQD_HOST and the port of ``setting``; 0 takes a free port. Raises SetupError."""
    try:
        return open_server(host, port)
    except OSError as error:
        raise SetupError(f"{setting}={port}, VQD_HOST={host}: cannot listen there: {error.strerror}") from None


def port_is_free(host: str, port: int) -> bool:
    """Whether we could listen at host:port now."""
    try:
        open_server(host, port).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A loopback TCP port that nothing listens on now, and that the kernel keeps for a minute for whoever asks for it.

    After a connection that was ended from its side, no one gets it who asks for any port, or connects from any.
    """
    with open_server("127.0.0.1", 0) as probe, socket.create_connection(probe.getsockname()):
        probe.accept()[0].close()
        return int(probe.getsockname()[1])


def open_server(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    server = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Its connections inherit this. asyncio would see to it, but not for a socket that does not name its protocol; and
    # each answer in two parts would then wait 40 ms for the client's delayed acknowledgement of the first.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def port_answers(host: str, port: int) -> bool:
    """Whether somebody listens at host:port now."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
