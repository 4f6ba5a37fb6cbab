"""How long a webhook rests between two attempts."""

import pytest

from service.gateway.webhooks.postman import LONGEST_S, pause_s


@pytest.mark.parametrize(
    ("attempt", "usual_s"), [(1, 5), (2, 15), (3, 45), (8, 10_935), (9, LONGEST_S), (10**6, LONGEST_S)]
)
def test_each_pause_is_three_times_the_last_one_up_to_four_hours(attempt: int, usual_s: float) -> None:
    for _ in range(50):
        assert 0.8 * usual_s <= pause_s(5.0, attempt) <= 1.2 * usual_s


def test_what_failed_together_does_not_come_back_together() -> None:
    pauses = [pause_s(100.0, 1) for _ in range(50)]
    assert max(pauses) - min(pauses) > 5


def test_a_day_has_a_dozen_attempts() -> None:
    """As the page says: for a day, after 5 seconds and then three times as long each time."""
    age_s, attempt = 0.0, 1
    while age_s < 86_400:
        age_s, attempt = age_s + pause_s(5.0, attempt), attempt + 1
    assert 10 <= attempt <= 16
