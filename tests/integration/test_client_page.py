"""The examples of docs/python.md, one after the other, as a person would run them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/python.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
NODE = shutil.which("node")
PAGE_URL = "http://localhost:8080"


@pytest.fixture(scope="module")
def examples() -> list[str]:
    assert len(EXAMPLES) == 7
    return list(EXAMPLES)


def test_the_examples_of_the_page_run(
    examples: list[str], gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    program = "\n".join(examples).replace(PAGE_URL, gateway.url)
    assert program.count(gateway.url) == 2
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "n 1000 is out of range (allowed: a whole number from 1 to 4)"
    assert len([line for line in lines if line.endswith("of 4 evaluations")]) == 3
    for name in ("apple.png", "half-green.png", "greener.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
    assert len(list((tmp_path / "pictures").glob("red-apple-*"))) == 2 + 4 + 4 + 1


@pytest.mark.skipif(NODE is None, reason="there is no node here")
def test_the_example_for_javascript_runs(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    (example,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs/http-api.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "example.mjs").write_text(example.replace(PAGE_URL, gateway.url))
    subprocess.run([str(NODE), "example.mjs"], cwd=tmp_path, check=True, timeout=60)
    with Image.open(tmp_path / "apple.png") as picture:
        assert picture.getpixel((0, 0)) == (7, 0, 0)


def test_every_error_that_the_page_names_is_there() -> None:
    table = PAGE.partition("| | when |")[2].partition("\n\n")[0]
    names = re.findall(r"`([A-Z]\w+)`", table)
    program = f"import vqd; assert all(issubclass(getattr(vqd, name), vqd.VqdError) for name in {names})"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
    assert len(names) > 10
