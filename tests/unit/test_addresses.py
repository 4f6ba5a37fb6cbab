"""What is told to clients names no machine of ours."""

import pytest

from service.gateway.addresses import without_addresses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Redis: Error 111 connecting to 10.0.0.7:6379. Connection refused.",
            "Redis: Error 111 connecting to (address). Connection refused.",
        ),
        (
            "Error -2 connecting to vqd-redis.default.svc.cluster.local:6379. Name or service not known.",
            "Error -2 connecting to (address). Name or service not known.",
        ),
        ("ipv4:127.0.0.1:8001: failed to connect", "(address): failed to connect"),
        ("ipv6:%5B::1%5D:8001: connection refused", "(address): connection refused"),
        ("ipv6:[::1]:8001 is silent", "(address) is silent"),
        ("DNS resolution failed for triton:8001: nothing", "DNS resolution failed for (address): nothing"),
        ("no route to fe80::1 nor ::1", "no route to (address) nor (address)"),
        ("rediss://redis.example.org:6380 hung up", "(address) hung up"),
        ("unix:/run/redis.sock refused", "(address) refused"),
        ("Connect call failed ('::1', 6379, 0, 0).", "Connect call failed (address)."),
        ("Triton at 192.168.0.3 died", "Triton at (address) died"),
    ],
)
def test_addresses_are_taken_out(text: str, shown: str) -> None:
    assert without_addresses(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "the queue is full: 1000 jobs of shapes wait or run already",
        "worker tiny-7-ab is unready: Triton: no answer within 60.0 s",
        "steps: 65 evaluations for 64 tokens",
        "release 2.51.0 of Triton answered NaN at evaluation 12",
        "prompt: 90 tokens; at most 16 are allowed",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert without_addresses(text) == text
