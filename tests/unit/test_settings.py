"""Settings as people write them: misspelt, in small letters, in a file from Windows."""

import pytest

from service.settings import Settings, read_settings, unknown_variables


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("VQD_PROT", "VQD_PROT is no setting and does nothing; did you mean VQD_PORT?"),
        ("VQD_MAXROWS", "VQD_MAXROWS is no setting and does nothing; did you mean VQD_MAX_ROWS?"),
        ("vqd_prot", "vqd_prot is no setting and does nothing; did you mean VQD_PORT?"),
        ("VQD_X", "VQD_X is no setting and does nothing"),
    ],
)
def test_a_misspelt_variable_is_named(name: str, says: str) -> None:
    assert unknown_variables({"PATH": "/bin", name: "9000", "VQD_PORT": "1", "vqd_host": "::1"}) == [says]


def test_what_kubernetes_tells_of_our_own_services_is_no_typing_error() -> None:
    links = {
        "VQD_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "VQD_GATEWAY_SERVICE_PORT_HTTP": "80",
        "VQD_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "VQD_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_variables(links) == []


@pytest.mark.parametrize("value", ["info", "Info", "INFO", "info\r", "INFO\r\n"])
def test_a_log_level_may_be_in_any_letters(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQD_LOG_LEVEL", value)
    monkeypatch.setenv("VQD_LOG_FORMAT", value.lower().replace("info", "Text"))
    settings = read_settings()
    assert (settings.log_level, settings.log_format) == ("INFO", "text")


def test_the_line_ends_of_windows_are_not_part_of_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"redis_url": "redis://10.0.0.1:6379/0", "triton_url": "10.0.0.1:8001", "host": "::1", "repository": "a b"}
    for field, value in given.items():
        monkeypatch.setenv(f"VQD_{field.upper()}", f"{value}\r")
    monkeypatch.setenv("VQD_PORT", "9000\r")
    monkeypatch.setenv("VQD_ALLOW_UNAUTHENTICATED", "true\r")
    settings = read_settings()
    assert {field: str(getattr(settings, field)) for field in given} == given
    assert (settings.port, settings.allow_unauthenticated) == (9000, True)


def test_a_client_is_answered_before_the_usual_proxy_gives_up() -> None:
    """nginx and AWS's load balancers wait for a minute; an equal wait would be a toss of a coin."""
    assert Settings().sync_wait_s <= 55
