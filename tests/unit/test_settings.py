"""Settings as people write them: misspelt, in small letters, in a file from Windows."""

import re

import pytest

from service.errors import SetupError
from service.settings import Settings, listed, read_settings, unknown_variables


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


@pytest.mark.parametrize(
    ("field", "good", "as_read"),
    [
        ("allowed_hosts", "", ()),
        ("allowed_hosts", "VQD.example.com, *.example.org,10.0.0.7 , [fd00::1],", None),
        ("cors_origins", "https://App.example.com, http://localhost:3000 ,tauri://localhost", None),
        ("cors_origins", "*", ("*",)),
    ],
)
def test_lists_have_commas(field: str, good: str, as_read: tuple[str, ...] | None) -> None:
    wanted = as_read if as_read is not None else tuple(part.strip() for part in good.lower().split(",") if part)
    assert listed(getattr(read_settings(**{field: good}), field)) == wanted


@pytest.mark.parametrize(
    ("field", "bad", "says"),
    [
        ("allowed_hosts", "a.example, b.example:80", "'b.example:80' is not a name or an address without port"),
        ("allowed_hosts", "https://a.example", "without port or scheme"),
        ("allowed_hosts", "*", "example.com"),
        ("allowed_hosts", "a.*.example", "example.com"),
        ("cors_origins", "https://a.example/", "'https://a.example/' is not an origin as browsers send it"),
        ("cors_origins", "https://a.example,b.example", "'b.example'"),
        ("cors_origins", "https://*.example", "origin"),
        ("cors_origins", "null", "origin"),
        ("root_path", "vqd", "begin with /"),
        ("root_path", "/vqd/", "not end with it"),
        ("root_path", "/", "not end with it"),
        ("root_path", "//evil.example", "begin with /"),
        ("root_path", "/a/../b", "begin with /"),
        ("root_path", "/ä", "letters, digits"),
        ("metrics_port", "65536", "65535"),
    ],
)
def test_what_opens_the_gateway_is_checked(field: str, bad: str, says: str) -> None:
    with pytest.raises(SetupError) as told:
        read_settings(**{field: bad})
    assert str(told.value).startswith(f"VQD_{field.upper()}={bad!r}: ")
    assert says in str(told.value)


@pytest.mark.parametrize("good", ["", "/vqd", "/a/b-c/d.e_f~g"])
def test_a_prefix(good: str) -> None:
    assert read_settings(root_path=good).root_path == good


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"s3_bucket": "a/b"}, "VQD_S3_BUCKET='a/b': "),
        ({"s3_bucket": "mine", "s3_prefix": "/vqd"}, "VQD_S3_PREFIX='/vqd': "),
        ({"s3_bucket": "mine", "s3_prefix": "vqd/../a"}, "VQD_S3_PREFIX='vqd/../a': "),
        ({"s3_bucket": "mine", "s3_endpoint": "minio:9000"}, "VQD_S3_ENDPOINT: "),
        ({"s3_bucket": "mine", "s3_endpoint": "https://key:hunter2@minio:9000"}, "VQD_S3_ENDPOINT: "),
        ({"s3_endpoint": "https://minio:9000"}, "VQD_S3_ENDPOINT: Value error, is of no use without VQD_S3_BUCKET"),
        ({"s3_prefix": "vqd"}, "VQD_S3_PREFIX='vqd': Value error, is of no use without VQD_S3_BUCKET"),
        ({"s3_region": "eu-west-1"}, "VQD_S3_REGION='eu-west-1': Value error, is of no use without VQD_S3_BUCKET"),
        ({"s3_bucket": "mine", "s3_timeout_s": 0}, "VQD_S3_TIMEOUT_S=0: "),
    ],
    ids=str,
)
def test_what_says_where_pictures_go_is_checked(given: dict[str, object], says: str) -> None:
    with pytest.raises(SetupError, match=f"^{re.escape(says)}") as caught:
        read_settings(**given)
    assert "hunter2" not in str(caught.value)
