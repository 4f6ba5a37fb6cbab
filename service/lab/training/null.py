"""Learn null text states on a finished transformer, as the paper does (2205.16007, section 3.1): nothing else moves."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.lab.training.data import encode_captions
from service.lab.training.diffusion import Denoiser, DiffusionRecipe, TrainingSet, simplified_loss
from service.lab.training.loop import SavedRun, Stateful, training_steps
from service.models.card import REFERENCE, load_card
from service.models.folder import load_text


@dataclass(frozen=True)
class NullRecipe:
    """What decides the null, beside the data and the transformer."""

    steps: int = 200
    learning_rate: float = 5e-3
    seed: int = 0
    diffusion: DiffusionRecipe = field(default_factory=lambda: DiffusionRecipe(null_share=1.0))
    """How batches are drawn and corrupted; every caption is dropped."""


def empty_states() -> Tensor:
    """The zero-shot null [S, D]: the text states of the empty string."""
    encoder, tokenizer, _ = load_text(REFERENCE, load_card(REFERENCE))
    return torch.from_numpy(encode_captions([""], tokenizer, encoder))[0].float()


def train_null(data: Path, work: Path, recipe: NullRecipe, start: Tensor | None = None) -> Path:
    """Learn (or resume) from ``start``, by default the zero-shot null; write ``null.safetensors``. Returns its path."""
    examples = TrainingSet(data, work / "vqvae.safetensors", recipe.diffusion)
    model = Denoiser()
    weights = load_file(work / "transformer.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    model.requires_grad_(False)
    model.null = nn.Parameter(empty_states() if start is None else start)
    optimiser = torch.optim.AdamW([model.null], recipe.learning_rate, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(recipe.seed)
    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser}
    for step, log in training_steps("null", recipe.steps, SavedRun(work / "null.checkpoint.pt", parts, generator)):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
        loss = simplified_loss(model, *examples.batch(recipe.diffusion, generator), recipe.diffusion, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        log(loss=loss.item())
    path = work / "null.safetensors"
    save_file({"embeddings": model.null.detach().half().contiguous()}, path)
    return path
