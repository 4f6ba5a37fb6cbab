"""A stand-in for python:3.11-slim-bookworm where no registry is reachable: the same Debian, with its own Python 3.11.

It also holds what an organisation's own base image would: this machine's certificates and package index.
"""

import re
import shutil
from pathlib import Path

from engine import Docker, install, run

PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
REACHABLE = ("index-url", "trusted-host")


def make_base(docker: Docker, folder: Path, cache: Path) -> str:
    """The image's name. ``cache`` keeps the root file system for the next time."""
    archive = cache / "bookworm-python3.tar"
    if not archive.exists():
        make_archive(archive)
    bare = docker("import", archive)
    shutil.copy(CERTIFICATES, folder / "ca-certificates.crt")
    (folder / "pip.conf").write_text(pip_configuration(run("pip", "config", "list").stdout))
    (folder / "Dockerfile").write_text(
        f"FROM {bare.removeprefix('sha256:')}\nCOPY ca-certificates.crt {CERTIFICATES}\nCOPY pip.conf /etc/pip.conf\n"
    )
    docker("build", "--tag=vqd-stand-in:test", folder)
    return "vqd-stand-in:test"


def make_archive(archive: Path) -> None:
    if not shutil.which("mmdebstrap"):
        install("mmdebstrap")
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name("partial.tar")
    done = run("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", partial)
    assert done.returncode == 0, done.stdout[-2000:]
    partial.rename(archive)


def pip_configuration(listed: str) -> str:
    """This machine's index; not what lies in its file system, which a build does not see."""
    settings = dict(re.findall(r"^global\.([\w-]+)='(.*)'$", listed, flags=re.MULTILINE))
    kept = {name: value for name, value in settings.items() if name in REACHABLE}
    return "\n".join(["[global]", f"cert = {CERTIFICATES}", *(f"{name} = {value}" for name, value in kept.items()), ""])
