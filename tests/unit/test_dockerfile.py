"""The Dockerfile: linted, pinned, without root, and slim where it promises to be."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from itertools import takewhile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
TARGETS = ("gateway", "worker", "export", "triton")
SLIM_LIMIT_MB = 265
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """(keyword, argument) of each, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (keyword, " ".join(rest.split())) for keyword, _, rest in (line.partition(" ") for line in text.split("\n"))
    ]


def stages() -> dict[str, list[Instruction]]:
    """Stage → its own instructions; the first is FROM."""
    found: dict[str, list[Instruction]] = {}
    for keyword, argument in instructions():
        if keyword == "FROM":
            name = argument.split(" AS ")[1]
            found[name] = []
        if found and keyword:
            found[name].append((keyword, argument))
    return found


def history(stage: str) -> list[Instruction]:
    """All instructions that make a stage, those of the stages it starts from included."""
    own = stages()[stage]
    parent = own[0][1].split()[0]
    return (history(parent) if parent in stages() else []) + own


def arguments(stage: str, keyword: str) -> list[str]:
    return [argument for word, argument in history(stage) if word == keyword]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_targets_of_the_contract_are_there() -> None:
    assert set(TARGETS) <= stages().keys()


def test_base_images_are_pinned_arguments() -> None:
    pins = dict(argument.split("=") for word, argument in takewhile(lambda i: i[0] != "FROM", instructions()) if word)
    assert set(pins) == {"PYTHON_IMAGE", "TRITON_IMAGE"}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", pins["PYTHON_IMAGE"])
    month = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-py3", pins["TRITON_IMAGE"])
    assert month
    assert month[1] >= "26.08"
    for own in stages().values():
        base = own[0][1].split()[0]
        assert base in stages() or base.strip("${}") in pins


@pytest.mark.parametrize("target", TARGETS)
def test_no_target_runs_as_root(target: str) -> None:
    user, _, group = arguments(target, "USER")[-1].partition(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    assert history(target).index(("USER", f"{user}:{group}")) > max(
        position for position, (word, _) in enumerate(history(target)) if word in ("RUN", "COPY")
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_image_says_whose_it_is_and_leaves_the_version_to_the_release(target: str) -> None:
    labels = dict(label.split("=") for line in arguments(target, "LABEL") for label in line.split())
    assert labels.pop("org.opencontainers.image.licenses", None) == (None if target == "triton" else "Apache-2.0")
    assert labels == {"org.opencontainers.image.title": f"vqd-{target}", "org.opencontainers.image.vendor": "vqd"}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_health_check_that_needs_no_curl(target: str) -> None:
    (check,) = arguments(target, "HEALTHCHECK")
    assert check == "NONE" if target == "export" else "probe" in check
    assert "curl" not in check


def test_the_package_is_built_with_all_that_it_names() -> None:
    """Its long description and its licence, which travel with every copy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {project["readme"], *project["license-files"]}
    copied = {name for word, argument in stages()["package"] if word == "COPY" for name in argument.split()}
    context = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert needed <= copied & context


def test_a_code_change_reinstalls_nothing() -> None:
    """No dependency is installed in a layer that follows one with our code."""
    for stage, own in stages().items():
        if stage == "package":
            continue
        words = [
            word for word, argument in own if word == "RUN" or (word == "COPY" and argument.startswith("service "))
        ]
        assert "COPY" not in words, stage
    package = [argument for word, argument in stages()["package"] if word in ("COPY", "RUN")]
    code = package.index("service service")
    assert all("-r /requirements" not in argument for argument in package[code:])
    assert "--no-deps" in package[-1]


@pytest.mark.parametrize("target", ["gateway", "worker"])
def test_dependencies_come_before_our_code(target: str) -> None:
    copies = arguments(target, "COPY")
    assert copies == ["--from=dependencies /opt/vqd /opt/vqd", "--from=package /slim /opt/vqd"]


def test_every_install_is_constrained() -> None:
    for word, argument in instructions():
        if word == "RUN":
            for command in argument.split("&&"):
                if " install " in command and "pip" in command:
                    assert "constraints.txt" in command or "--no-deps" in command, command


def closure(names: list[str]) -> set[str]:
    """Distributions that these requirements bring, by what is installed here."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        environments = [{"extra": extra} for extra in (requirement.extras or {""})]
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if any(f"{name}[{extra['extra']}]" not in found for extra in environments):
            found |= {f"{name}[{extra['extra']}]" for extra in environments}
            waiting += [
                other
                for other in map(Requirement, distribution(name).requires or [])
                if other.marker is None or any(other.marker.evaluate(extra) for extra in environments)
            ]
    return {name.partition("[")[0] for name in found}


def size_mb(name: str) -> float:
    dist = distribution(name)
    paths = {Path(str(dist.locate_file(path))) for path in dist.files or []}
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def test_gateway_and_worker_need_no_torch_and_stay_slim() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = [argument for argument in arguments("requirements", "ARG") if argument.startswith("EXTRAS=")]
    [extra] = extras.removeprefix("EXTRAS=").strip('"').split(",")
    packages = closure([*project["dependencies"], *project["optional-dependencies"][extra]])
    assert {"fastapi", "grpcio", "numpy", "obstore", "redis", "tokenizers"} <= packages
    assert not packages & {"torch", "transformers", "nvidia-pytriton", "sentence-transformers", "scipy"}
    assert sum(map(size_mb, packages)) <= SLIM_LIMIT_MB
