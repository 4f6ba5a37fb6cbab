"""Official checkpoints of every family on the real Triton: whole runs and pictures are the official code's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from integration.gateway_harness import Background
from peers.official import FAMILIES, MISSING, Port
from torch import Tensor

from service.export.build import export_model
from service.local.triton import TritonServer
from service.triton.client import TritonClient
from service.triton.contract import StepBatch

pytestmark = pytest.mark.skipif(not FAMILIES, reason=MISSING)


class Served:
    """One family, converted, exported, and served by a Triton of its own."""

    def __init__(self, family: str, folder: Path) -> None:
        self.port = Port(family, folder / family)
        info = export_model(folder / family, folder / "repository", max_batch=2, dtype="fp32")
        self.triton = TritonServer(folder / "repository", folder / "run")
        self.background = Background()
        self.triton.__enter__()
        self.client = TritonClient(self.triton.grpc_url, expected=info)

    def step(self, inputs: dict[str, Tensor]) -> Tensor:
        arrays = {name: value.numpy() for name, value in inputs.items()}
        if "contexts" in arrays:
            arrays["contexts"] = arrays["contexts"].astype(np.float16)
        if "labels" in arrays:
            arrays["labels"] = arrays["labels"].astype(np.int32)
        output = self.background.call(self.client.step(StepBatch(**arrays)), limit_s=60)
        return torch.from_numpy(output.tokens.copy())

    def close(self) -> None:
        self.background.call(self.client.close())
        self.triton.__exit__(None, None, None)


@pytest.fixture(scope="module", params=FAMILIES or ["none"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(request.param, tmp_path_factory.mktemp(request.param))
    yield one
    one.close()


def test_whole_runs_and_pictures(served: Served) -> None:
    golden = served.port.golden
    names = [
        key.removeprefix("run_").removesuffix("_tokens")
        for key in golden
        if key.startswith("run_") and "_tokens" in key
    ]
    assert len(names) >= 2
    for name in names:
        expected, margin = golden[f"run_{name}_tokens"], float(golden[f"run_{name}_margin"].min())
        tokens = served.port.run(name, served.step)
        assert torch.equal(tokens, expected) or margin < 1e-4, f"{name}: nearest miss {margin}"
    drawn = served.background.call(served.client.decode(golden["decode_tokens"].int().numpy()))
    assert np.abs(drawn.astype(int) - golden["decode_uint8"].numpy().astype(int)).max() <= 1
    picture = golden["encode_image"].round().byte().numpy()
    if np.array_equal(picture, golden["encode_image"].numpy()):
        read = served.background.call(served.client.encode_image(picture))
        assert np.array_equal(read, golden["encode_tokens"].numpy())
