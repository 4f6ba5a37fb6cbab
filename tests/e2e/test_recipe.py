"""The recipe of the bundled model from the published packages, as its model card says, with a few steps each."""

import shutil
from pathlib import Path

import pytest
from commands import vqd

COMMANDS = (("codec", "--smoke"), ("diffusion", "--smoke"), ("null", "--smoke"), ("judge", "--smoke"))


def test_the_recipe_runs_from_the_packages(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH: the data are npm packages")
    done = vqd("train", "data", "--every", "96", cwd=tmp_path)  # the text states of all take more than a minute
    if "npm pack" in done.stderr:
        pytest.skip(f"the npm registry gives no packages: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        done = vqd("train", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert Path(tmp_path / done.stdout.splitlines()[-1]).exists()
    work = tmp_path / "outputs/train"
    done = vqd("train", "plot", "--work", str(work / "smoke"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (work / "smoke").glob("*.png")} == {"codec", "diffusion", "null", "features"}
    assert not list(work.glob("*.safetensors")), "a smoke run leaves the real one's place alone"
    done = vqd("train", "assemble", "--work", str(work / "smoke"), "--to", "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "vqd.json").exists()
