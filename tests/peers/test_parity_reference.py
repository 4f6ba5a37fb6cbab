"""The weights that ship, in diffusers' classes: the same logits, tokens and pictures."""

import pytest
import torch
from diffusers import Transformer2DModel, VQModel

from service.models.card import REFERENCE
from service.models.folder import load_model

# diffusers about itself, on every forward pass
pytestmark = pytest.mark.filterwarnings("ignore:`Transformer2DModelOutput` is deprecated:FutureWarning")

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def states() -> torch.Tensor:
    model = load_model(REFERENCE)
    encodings = [model.tokenizer.encode(prompt) for prompt in ("red apple, noto style", "sun", "fire engine")]
    ids, mask = (torch.tensor([getattr(e, name) for e in encodings]) for name in ("ids", "attention_mask"))
    return model.text(ids.int(), mask.int()).float()


@torch.inference_mode()
def test_the_transformers_logits(states: torch.Tensor) -> None:
    ours, theirs = load_model(REFERENCE).transformer, Transformer2DModel.from_pretrained(REFERENCE / "transformer")
    tokens = torch.randint(0, 257, (3, 64), generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([3, 50, 99])
    expected = torch.cat([theirs(tokens[[i]], states[[i]], t).sample for i, t in enumerate(timesteps)])
    logits = ours(tokens, timesteps, ours.memory(states)).log_softmax(-1).transpose(1, 2)
    assert float((logits - expected).abs().max()) <= TOLERANCE
    assert float(expected.exp().max()) > 0.5, "a trained model is sure of something"


@torch.inference_mode()
def test_the_codecs_pictures() -> None:
    ours, theirs = load_model(REFERENCE).vqvae, VQModel.from_pretrained(REFERENCE / "vqvae")
    tokens = torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(0))
    latents = theirs.quantize.get_codebook_entry(tokens.flatten(), shape=(4, 8, 8, 16))
    expected = theirs.decode(latents, force_not_quantize=True).sample
    assert float((ours.decode(tokens) - expected).abs().max()) <= TOLERANCE
    assert torch.equal(ours.encode(expected), theirs.quantize(theirs.encode(expected).latents)[2][2].view(4, 64))
