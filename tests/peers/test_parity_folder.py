"""A folder written by diffusers, loaded by us: text states, null states and networks are the same."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
from peers.pipeline_folder import save_pipeline
from peers.random_models import RELEASED_FAMILY, TEXT_POSITIONS
from torch import Tensor
from torch.nn import Module
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig
from unit.model_folder import write_model

from service.models.folder import LoadedModel, load_model
from service.models.reading import Reading

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


def networks(pipeline: VQDiffusionPipeline) -> Iterator[tuple[str, Module]]:
    yield from (("transformer", pipeline.transformer), ("vqvae", pipeline.vqvae))


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_shards_and_variants_load_as_diffusers_writes_them(
    variant: str | None, safe: bool, both: tuple[VQDiffusionPipeline, Path], tmp_path: Path
) -> None:
    pipeline, folder = both
    notes: list[str] = []
    pipeline.save_pretrained(tmp_path, safe_serialization=safe, variant=variant, max_shard_size="100KB")
    written = {path.name for path in (tmp_path / "transformer").iterdir()}
    assert len(written) > 3, "a config, an index, and shards"
    assert any(".fp16" in name for name in written) is bool(variant)
    model, whole = load_model(tmp_path, Reading(on_note=notes.append)), load_model(folder)
    for name, theirs in networks(pipeline):
        ours = getattr(model, name).state_dict()
        assert all(torch.equal(value, ours[n]) for n, value in theirs.state_dict().items())
    for prompt in PROMPTS:
        assert torch.equal(our_states(model, prompt), our_states(whole, prompt))
        assert torch.equal(our_states(model, prompt, null=True), our_states(whole, prompt, null=True))
    assert sum("variant 'fp16'" in note for note in notes) >= 3 * bool(variant)


def test_a_whole_clip_serves_as_the_text_encoder(both: tuple[VQDiffusionPipeline, Path], tmp_path: Path) -> None:
    """With its own config.json, which has that of the text model inside, and the weights for pictures."""
    pipeline, folder = both
    shutil.copytree(folder, tmp_path / "model")
    text = pipeline.text_encoder.config
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    whole = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    whole.text_model.load_state_dict(text_tower(pipeline).state_dict())
    shutil.rmtree(tmp_path / "model/text_encoder")
    whole.save_pretrained(tmp_path / "model/text_encoder")
    assert json.loads((tmp_path / "model/text_encoder/config.json").read_text())["model_type"] == "clip"
    ours, expected = load_model(tmp_path / "model"), load_model(folder)
    assert all(torch.equal(our_states(ours, prompt), our_states(expected, prompt)) for prompt in PROMPTS)


def text_tower(pipeline: VQDiffusionPipeline) -> Module:
    """Of transformers 4 and 5."""
    return getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)


def test_diffusers_loads_what_we_save(tmp_path: Path) -> None:
    ours, codec = write_model(tmp_path)
    network = Transformer2DModel.from_pretrained(tmp_path / "transformer")
    assert all(torch.equal(value.half().float(), network.state_dict()[n]) for n, value in ours.state_dict().items())
    autoencoder = VQModel.from_pretrained(tmp_path / "vqvae").state_dict()
    assert all(torch.equal(value.half().float(), autoencoder[n]) for n, value in codec.state_dict().items())
    scheduler = VQDiffusionScheduler.from_pretrained(tmp_path / "scheduler")
    assert (scheduler.num_embed, len(scheduler.timesteps)) == (network.config.num_vector_embeds, 100)
