"""Listening where the settings say, and saying what is wrong when that cannot be."""

import socket
from collections.abc import Iterator

import pytest

from service.errors import SetupError
from service.sockets import free_port, is_here, listen, port_answers, port_is_free, refusal, url_of


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0, "VQD_PORT") as opened:
        yield opened


def test_clients_reach_a_listener_at_once(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname(), timeout=5) as client:
        assert client.getpeername() == listener.getsockname()


def test_answers_are_sent_at_once(listener: socket.socket) -> None:
    """Not after the client's delayed acknowledgement, 40 ms later."""
    with socket.create_connection(listener.getsockname(), timeout=5), listener.accept()[0] as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_may_be_of_version_6() -> None:
    with listen("::1", 0, "VQD_PORT") as opened:
        assert opened.getsockname()[0] == "::1"


def test_a_taken_port_names_both_settings_and_the_reason(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(SetupError, match=rf"VQD_METRICS={port}, VQD_HOST=127\.0\.0\.1: .*: Address already in use"):
        listen("127.0.0.1", port, "VQD_METRICS")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SetupError, match=r"VQD_HOST=203\.0\.113\.1: .*: Cannot assign requested address"):
        listen("203.0.113.1", 0, "VQD_PORT")  # for documentation only (RFC 5737)


def test_a_port_is_free_until_someone_listens(listener: socket.socket) -> None:
    assert port_is_free("127.0.0.1", free_port())
    assert not port_is_free("127.0.0.1", listener.getsockname()[1])
    assert not port_is_free("203.0.113.1", free_port())


def test_a_refusal_has_its_reason(listener: socket.socket) -> None:
    assert refusal("127.0.0.1", listener.getsockname()[1]) == "Address already in use"
    assert refusal("203.0.113.1", 0) == "Cannot assign requested address"
    assert refusal("127.0.0.1", 0) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "0.0.0.0"])
def test_this_machine_is_known_by_its_addresses(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize("host", ["203.0.113.1", "2001:db8::1", "example.com", "localhost.example.com", ""])
def test_other_machines_are_not_taken_for_this_one(host: str) -> None:
    assert not is_here(host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
    ],
)
def test_the_url_of_an_address_can_be_gone_to(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def test_a_port_answers_while_somebody_listens() -> None:
    port = free_port()
    assert not port_answers("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert port_answers("127.0.0.1", port)


def test_a_free_port_is_kept_for_the_server_that_it_was_asked_for() -> None:
    port = free_port()
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        socket.create_connection(("127.0.0.1", port)).close()
