"""Rendered manifests that the tests of several files break or look into."""

import os
from pathlib import Path

import pytest
import yaml
from manifests import K8S, Manifest, render


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay as a user would write it: the GPU overlay and all components."""
    folder = tmp_path_factory.mktemp("overlay")

    def relative(path: str) -> str:
        return os.path.relpath(K8S / path, folder)

    components = [relative(f"components/{path.name}") for path in sorted((K8S / "components").iterdir())]
    text = yaml.safe_dump({"resources": [relative("overlays/gpu")], "components": components})
    (folder / "kustomization.yaml").write_text(text)
    return folder


@pytest.fixture
def gpu() -> list[Manifest]:
    return render(K8S / "overlays/gpu")
