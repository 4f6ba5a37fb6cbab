"""A converted text model in diffusers' own pipeline: the same weights, logits, states and pictures."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import VQDiffusionPipeline, VQModel
from tqdm import tqdm
from unit.official_checkpoint import CLASSES, TEXT, make_checkpoint, make_mapping, write_vocabulary

from service.models.convert.convert import convert
from service.models.convert.layout import Given
from service.models.convert.understanding import Options
from service.models.folder import load_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`Transformer2DModelOutput` is deprecated:FutureWarning",
    "ignore:.*:DeprecationWarning",
)


@pytest.mark.parametrize("null", [True, False], ids=["learned null", "zero-shot null"])
def test_the_pipeline_loads_and_computes_the_same(null: bool, tmp_path: Path) -> None:
    spec = replace(TEXT, null=null, quantiser="gumbel", full=20)
    torch.save(make_checkpoint(spec), tmp_path / "tiny.pth")
    torch.save(make_mapping(spec), tmp_path / "mapping.pt")
    options = Options(tmp_path / "mapping.pt", write_vocabulary(tmp_path / "words"), given=Given(heads=2))
    list(convert(tmp_path / "tiny.pth", tmp_path / "model", options, tqdm(file=io.StringIO())))
    ours, pipeline = load_model(tmp_path / "model"), VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert ours.text is not None
    null_states, states = pipeline._encode_prompt(["a cat, red"], 1, True).chunk(2)
    torch.testing.assert_close(ours.text.null[None], null_states, rtol=1e-4, atol=1e-5)
    tokens, timestep = torch.arange(16)[None] % (spec.codes + 1), torch.tensor([40])
    logits = ours.transformer(tokens, timestep, ours.transformer.memory(states))
    theirs = pipeline.transformer(tokens, encoder_hidden_states=states, timestep=timestep[0]).sample
    torch.testing.assert_close(logits.log_softmax(-1).transpose(1, 2), theirs, rtol=1e-4, atol=1e-4)
    same_picture(ours.vqvae.decode(tokens % spec.codes), pipeline.vqvae, tokens % spec.codes)


def same_picture(ours: torch.Tensor, codec: VQModel, tokens: torch.Tensor) -> None:
    shape = (1, 4, 4, codec.config.vq_embed_dim)
    theirs = codec.decode(codec.quantize.get_codebook_entry(tokens, shape), force_not_quantize=True).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_codec_of_a_model_of_classes_is_diffusers_too(tmp_path: Path) -> None:
    torch.save(make_checkpoint(CLASSES), tmp_path / "tiny.pth")
    torch.save(make_mapping(CLASSES), tmp_path / "mapping.pt")
    options = Options(tmp_path / "mapping.pt", given=Given(heads=2, grid=4))
    list(convert(tmp_path / "tiny.pth", tmp_path / "model", options, tqdm(file=io.StringIO())))
    tokens = torch.arange(16)[None] % CLASSES.codes
    codec = VQModel.from_pretrained(tmp_path / "model/vqvae")
    same_picture(load_model(tmp_path / "model").vqvae.decode(tokens), codec, tokens)
