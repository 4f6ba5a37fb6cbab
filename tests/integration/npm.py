"""Packages of npm, for tests that are skipped where there is no npm or no registry."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(folder: Path, *packages: str) -> Path:
    """The folder of the packages' commands, below ``folder``; skips where they cannot be had."""
    names = " and ".join(packages)
    if not (npm := shutil.which("npm")):
        pytest.skip(f"there is no npm, and so no {names}")
    (folder / "package.json").write_text(json.dumps({"private": True}))
    command = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=15000", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {names}: {done.stderr.strip().splitlines()[0]}")
    return folder / "node_modules" / ".bin"
