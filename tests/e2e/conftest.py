"""One export of the bundled model, and one running service for every test that harms nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers.pipeline_folder import save_pipeline
from running import supervised

from service.export.build import ensure_exported
from service.local.supervisor import Supervisor
from service.models.card import REFERENCE


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the bundled model."""
    repository = tmp_path_factory.mktemp("reference") / "repository"
    assert ensure_exported(REFERENCE, repository)
    assert not ensure_exported(REFERENCE, repository)
    return repository


@pytest.fixture(scope="session")
def supervisor(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """Redis, Triton, a worker and a gateway that serve the bundled model."""
    with supervised(exported, tmp_path_factory.mktemp("service")) as started:
        yield started


@pytest.fixture(scope="session")
def service(supervisor: Supervisor) -> str:
    """Its URL."""
    return supervisor.url


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that diffusers wrote: random weights, 8x8 tokens, 16x16 pixels, with its own text encoder."""
    folder = tmp_path_factory.mktemp("folders") / "random-pipeline"
    save_pipeline(folder)
    return folder
