"""The pages of the gateway come from the gateway alone, and work where there is no internet."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    gateway_settings,
    running_gateway,
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPERATIONS = ("pictures-generate", "jobs-read_image", "models-list_models", "service-check_health")


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href|action)="(?!data:)([^"]*)"', page)


def test_whoever_looks_for_redoc_finds_the_docs(gateway: RunningGateway) -> None:
    answer = gateway.http.get("/redoc", follow_redirects=True)
    assert (answer.url.path, answer.headers["Content-Type"]) == ("/docs", "text/html; charset=utf-8")
    assert gateway.http.get("/redoc").headers["Location"] == "docs", "it stays under a proxy's prefix"


def test_every_address_in_the_page_is_ours_and_is_kept_for_ever(gateway: RunningGateway) -> None:
    page = gateway.http.get("/docs").text
    found = addresses(page)
    assert [address.rpartition("/")[2] for address in found] == [
        "swagger-ui.css",
        "theme.js",
        "docs.js",
        "swagger-ui-bundle.js",
    ]
    for address in found:
        assert re.fullmatch(r"assets/[0-9a-f]{16}/[a-z.-]+", address), "relative: it stays under a proxy's prefix"
        answer = gateway.http.get(f"/{address}")
        assert answer.status_code == 200
        assert (
            answer.headers["Content-Type"]
            == f"text/{'css' if address.endswith('css') else 'javascript'}; charset=utf-8"
        )
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        again = gateway.http.get(f"/{address}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert gateway.http.head(f"/{address}").headers["ETag"] == answer.headers["ETag"]


def test_another_versions_address_is_not_kept(gateway: RunningGateway) -> None:
    """A page of the version before, in a rollout: it gets a file, and keeps it no longer than it must."""
    answer = gateway.http.get("/assets/0123456789abcdef/docs.js")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize("name", ["nothing.js", "docs.html", "..%2fdocs.html", "redoc.standalone.js"])
def test_no_other_file_is_served(gateway: RunningGateway, name: str) -> None:
    assert gateway.http.get(f"/assets/0123456789abcdef/{name}").status_code == 404


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_browser_without_internet_shows_every_operation(gateway: RunningGateway, tmp_path: Path) -> None:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=60000", "--dump-dom", f"{gateway.url}/docs#/pictures/generate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert all(f'id="operations-{name}"' in done.stdout for name in OPERATIONS), done.stdout[-2000:]
    assert "X-Vqd-Image-Index" in done.stdout, "the one that is opened shows its answers"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == [], "nothing was refused by the policy, nor missing"
