"""What an API key looks like, where a request has it, and keys in a file."""

import re
import stat
import zlib
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import SetupError, Unauthorized
from service.gateway.access.guard import token_of
from service.gateway.access.identity import EVERYBODY, NOBODY, Identity, Scope, identity_of
from service.gateway.access.key_file import make_key_file, own_key, read_tokens
from service.gateway.access.known import of_file
from service.gateway.access.scopes import needed, route_of
from service.gateway.access.tokens import ALPHABET, OURS, checksum, digest, mint, misspelt
from service.queue.account import ANYBODY, Account
from service.settings import Settings, read_settings

SCANNER = re.compile(r"vqd_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}")
"""As the module's words have it."""
OTHER = "correct-horse-battery-staple-correct-horse"


def test_a_token_is_long_its_own_and_found_by_scanners() -> None:
    minted = [mint() for _ in range(200)]
    assert len({one.token for one in minted} | {one.id for one in minted}) == 400
    for one in minted:
        assert SCANNER.fullmatch(one.token)
        assert OURS.fullmatch(one.token)[1] == one.id
        assert one.digest == digest(one.token)
    assert len(ALPHABET) ** 32 > 2**128
    assert mint("aB3dE6gH").token.startswith("vqd_aB3dE6gH_")


def test_its_checksum_is_the_crc32_in_base_62() -> None:
    body = "vqd_00000000_" + "0" * 32
    number = 0
    for digit in checksum(body):
        number = 62 * number + ALPHABET.index(digit)
    assert number == zlib.crc32(body.encode())


def test_a_typing_error_is_seen_without_asking_anybody() -> None:
    token = mint("aB3dE6gH").token
    assert not misspelt(token)
    assert not misspelt(OTHER)
    other = "x" if token[20] != "x" else "y"
    for wrong in (token[:20] + other + token[21:], token[:-1], token + "0", "vqd_", token.replace("aB3", "aB4")):
        assert misspelt(wrong), wrong


def test_no_repr_has_a_secret() -> None:
    minted = mint()
    shown = repr([minted, of_file([minted.token], ANYBODY), Settings(api_key=minted.token)])
    assert minted.token not in shown
    assert minted.token.rpartition("_")[2] not in shown


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([("Authorization", "Bearer abc")], "abc"),
        ([("authorization", "bearer   abc ")], "abc"),
        ([("X-API-Key", " abc")], "abc"),
        ([("X-API-Key", "abc"), ("Authorization", "Bearer abc")], "abc"),
        ([("Authorization", "Basic YTpi")], None),
        ([("Authorization", "Basic YTpi"), ("X-API-Key", "abc")], "abc"),
        ([("Authorization", "Bearer"), ("X-API-Key", "")], None),
        ([("Authorization", "abc")], None),
    ],
)
def test_where_a_request_has_its_key(headers: list[tuple[str, str]], token: str | None) -> None:
    assert token_of(Headers(raw=[(name.lower().encode(), value.encode()) for name, value in headers])) == token


@pytest.mark.parametrize("second", [("x-api-key", "b"), ("authorization", "Bearer b")])
def test_two_keys_are_one_too_many(second: tuple[str, str]) -> None:
    pairs = [("authorization", "Bearer a"), second]
    with pytest.raises(Unauthorized, match="send one"):
        token_of(Headers(raw=[(name.encode(), value.encode()) for name, value in pairs]))


def test_the_keys_of_a_file_are_its_lines(tmp_path: Path) -> None:
    path, token = tmp_path / "keys", mint().token
    path.write_bytes(f"\ufeff{token}\r\n\n  {OTHER}  \n{token}\n".encode())
    assert read_tokens(path) == [token, OTHER]
    first, second = of_file(read_tokens(path), ANYBODY).values()
    assert (first.account, second.account) == (Account(owner="file-1"), Account(owner="file-2"))
    assert first.scopes == set(Scope)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no key"),
        (b"\n \n", "holds no key"),
        (OTHER.encode() + b"\ntooshort", "line 2 is no key: one is 32 to 512 printable characters"),
        (b"with spaces in it, and long enough to be a key", "line 1 is no key"),
        (b"\xff" * 40, "line 1 is no key"),
        (b"x" * 513, "line 1 is no key"),
        (None, "No such file or directory"),
    ],
)
def test_a_wrong_key_file_is_named_and_not_shown(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=re.escape(f"VQD_KEY_FILE={path}: ") + ".*" + says) as raised:
        read_tokens(path)
    assert not any(word in str(raised.value) for word in ("tooshort", "spaces in it", "xxx"))


def test_a_first_key_is_made_once_for_its_owners_eyes(tmp_path: Path) -> None:
    settings, made = own_key(Settings(host="0.0.0.0"), tmp_path / "run")
    path = tmp_path / "run/keys"
    assert made
    assert settings.key_file == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SCANNER.fullmatch(settings.api_key)
    assert own_key(Settings(host="0.0.0.0"), tmp_path / "run") == (settings, False)
    assert not make_key_file(path)
    assert list(path.parent.iterdir()) == [path]


def test_where_none_is_needed_none_is_made(tmp_path: Path) -> None:
    for settings in (Settings(), Settings(host="::1"), Settings(host="0.0.0.0", allow_unauthenticated=True)):
        assert own_key(settings, tmp_path) == (settings, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_file_that_is_named_is_used(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text(OTHER)
    monkeypatch.chdir(tmp_path)
    settings, made = own_key(Settings(host=host, key_file=Path("mine")), tmp_path / "run")
    assert (settings.key_file, settings.api_key, made) == (tmp_path / "mine", OTHER, False)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(SetupError, match=r"^cannot write to /proc/x/keys: "):
        make_key_file(Path("/proc/x/keys"))


def test_a_key_is_no_part_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQD_API_KEY", "two words")
    with pytest.raises(SetupError, match=r"^VQD_API_KEY: ") as raised:
        read_settings()
    assert "two words" not in str(raised.value)
    monkeypatch.setenv("VQD_API_KEY", "")
    monkeypatch.setenv("VQD_KEY_FILE", "")
    assert (read_settings().api_key, read_settings().key_file) == ("", None)


@pytest.mark.parametrize(
    ("scope", "granted", "may"),
    [
        (Scope.READ, {Scope.READ}, True),
        (Scope.READ, {Scope.GENERATE}, True),
        (Scope.READ, {Scope.METRICS}, False),
        (Scope.GENERATE, {Scope.READ, Scope.METRICS}, False),
        (Scope.METRICS, {Scope.GENERATE}, False),
        (Scope.METRICS, {Scope.ADMIN}, True),
        (Scope.ADMIN, {Scope.GENERATE, Scope.READ, Scope.METRICS}, False),
        (Scope.READ, set(), False),
    ],
)
def test_scopes(scope: Scope, granted: set[Scope], may: bool) -> None:
    assert scope.within(frozenset(granted)) is may


def test_a_route_that_nobody_named_asks_for_admin() -> None:
    route = Route("/new", lambda request: Response(), name="a_new_one")
    assert needed(route) is Scope.ADMIN
    found = route_of([route], {"type": "http", "method": "HEAD", "path": "/new", "headers": []})
    assert found is route
    assert route_of([route], {"type": "http", "method": "GET", "path": "/newer", "headers": []}) is None


def test_of_the_routes_of_a_path_the_one_with_the_method_decides() -> None:
    """Else the way in by an open one would be open for all."""
    asked = {"type": "http", "method": "POST", "path": "/new", "headers": []}
    reading, writing = [Route("/new", lambda request: Response(), methods=[method]) for method in ("GET", "POST")]
    assert route_of([reading, writing], asked) is writing
    assert route_of([reading], asked) is reading, "it answers 405"


@pytest.mark.anyio
async def test_without_a_guard_nobody_is_let_in() -> None:
    with pytest.raises(AttributeError):
        await identity_of(Request({"type": "http", "state": {}}))


def test_whose_a_job_is() -> None:
    key = Identity(Account(owner="a"), "", frozenset({Scope.GENERATE}))
    assert [key.owns(owner) for owner in ("a", "b", "")] == [True, False, False]
    assert [NOBODY.owns(owner) for owner in ("a", "")] == [False, False]
    assert [EVERYBODY.owns(owner) for owner in ("a", "")] == [True, True]
