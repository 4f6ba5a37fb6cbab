"""A folder written by diffusers, loaded by us: text states, null states and networks are the same."""

from pathlib import Path

import pytest
import torch
from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
from peers.pipeline_folder import save_pipeline
from peers.random_models import RELEASED_FAMILY, TEXT_POSITIONS
from torch import Tensor
from unit.model_folder import write_model

from service.models.folder import LoadedModel, load_model

PROMPTS = ["the red cat", "", "12 cats: 고", "Café"]


@pytest.fixture(scope="module", params=[True, False], ids=["learned null", "zero-shot null"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[VQDiffusionPipeline, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    return save_pipeline(folder, learnable=request.param, seed=4), folder


def our_states(model: LoadedModel, prompt: str, null: bool = False) -> Tensor:
    encoding = model.tokenizer.encode(prompt)
    mask = torch.tensor([encoding.attention_mask], dtype=torch.int32)
    return model.text(torch.tensor([encoding.ids], dtype=torch.int32), mask * int(not null))


def test_text_and_null_states_equal_the_pipelines(both: tuple[VQDiffusionPipeline, Path]) -> None:
    pipeline, folder = both
    model = load_model(folder)
    for prompt in PROMPTS:
        null, states = pipeline._encode_prompt([prompt], 1, True).chunk(2)
        assert states.shape == (1, TEXT_POSITIONS, RELEASED_FAMILY.cross_attention_dim)
        torch.testing.assert_close(our_states(model, prompt).float(), states, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(our_states(model, prompt, null=True).float(), null, rtol=1e-3, atol=1e-3)


def test_weights_and_sizes_are_the_pipelines(both: tuple[VQDiffusionPipeline, Path]) -> None:
    pipeline, folder = both
    model = load_model(folder)
    for ours, theirs in ((model.transformer, pipeline.transformer), (model.vqvae, pipeline.vqvae)):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
    info = model.info
    assert (info.tokens, info.codes, info.timesteps) == (64, 64, 100)
    assert (info.image_width, info.image_height, info.text_positions) == (16, 16, TEXT_POSITIONS)
    assert info.name == folder.name


def test_diffusers_loads_what_we_save(tmp_path: Path) -> None:
    ours, codec = write_model(tmp_path)
    network = Transformer2DModel.from_pretrained(tmp_path / "transformer")
    assert all(torch.equal(value.half().float(), network.state_dict()[n]) for n, value in ours.state_dict().items())
    autoencoder = VQModel.from_pretrained(tmp_path / "vqvae").state_dict()
    assert all(torch.equal(value.half().float(), autoencoder[n]) for n, value in codec.state_dict().items())
    scheduler = VQDiffusionScheduler.from_pretrained(tmp_path / "scheduler")
    assert (scheduler.num_embed, len(scheduler.timesteps)) == (network.config.num_vector_embeds, 100)
