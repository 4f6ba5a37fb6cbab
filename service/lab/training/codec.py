"""Train the VQ codec on 32x32 pictures: L1 + L2 + commitment, unit-length codes, dead codes revived."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from service.lab.training.loop import SavedRun, Stateful, training_steps
from service.models.vqvae import VQVAE, VQConfig

CONFIG = VQConfig(
    block_out_channels=(24, 48, 96),
    num_vq_embeddings=256,
    latent_channels=64,
    vq_embed_dim=16,
    sample_size=32,
    norm_num_groups=8,
)


@dataclass(frozen=True)
class CodecRecipe:
    """What decides the trained weights, beside the data."""

    steps: int = 2600
    batch: int = 32
    learning_rate: float = 2e-3
    commitment: float = 0.1
    revive_every: int = 50
    revive_until: float = 0.7
    seed: int = 0


def quantise(model: VQVAE, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Straight-through quantisation onto unit-length codes: (quantised, latents, tokens)."""
    latents = F.normalize(model.latents(pixels), dim=1)
    codes = F.normalize(model.quantize.embedding.weight, dim=1)
    flat = latents.flatten(2).transpose(1, 2)
    tokens = (flat @ codes.T).argmax(-1)
    chosen = codes[tokens].transpose(1, 2).reshape(latents.shape)
    return chosen, latents, tokens


def loss_of(model: VQVAE, pixels: Tensor, commitment: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, mean absolute error on a 0..1 scale, latents, tokens) of one batch."""
    chosen, latents, tokens = quantise(model, pixels)
    output = model.decode_latents(latents + (chosen - latents).detach())
    l1 = (output - pixels).abs().mean()
    l2 = (output - pixels).square().mean()
    codebook = (chosen - latents.detach()).square().sum(1).mean()
    commit = (latents - chosen.detach()).square().sum(1).mean()
    return l1 + l2 + codebook + commitment * commit, l1.detach() / 2, latents.detach(), tokens


def revive(model: VQVAE, used: Tensor, latents: Tensor, generator: torch.Generator) -> int:
    """Move every code that no latent chose lately onto a random latent of this batch; returns how many moved."""
    dead = (used == 0).nonzero().flatten()
    flat = latents.transpose(0, 1).flatten(1).T
    picks = torch.randint(flat.shape[0], (len(dead),), generator=generator)
    with torch.no_grad():
        model.quantize.embedding.weight[dead] = flat[picks]
    return len(dead)


def train_codec(data: Path, work: Path, recipe: CodecRecipe) -> Path:
    """Train (or resume) the codec and write ``vqvae.safetensors`` into ``work``. Returns its path."""
    pictures = np.load(data / "pictures.npz")
    images = torch.from_numpy(pictures["pixels"][~pictures["held_out"]])
    torch.manual_seed(recipe.seed)
    model = VQVAE(CONFIG).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.nn.init.normal_(model.quantize.embedding.weight)
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(recipe.seed)
    used = torch.zeros(CONFIG.num_vq_embeddings)
    counts = torch.nn.ParameterDict({"used": torch.nn.Parameter(used, requires_grad=False)})
    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser, "counts": counts}
    checkpoint = SavedRun(work / "codec.checkpoint.pt", parts, generator)

    for step, log in training_steps("codec", recipe.steps, checkpoint):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
        index = torch.randint(len(images), (recipe.batch,), generator=generator)
        pixels = images[index].permute(0, 3, 1, 2).float() / 127.5 - 1
        loss, error, latents, tokens = loss_of(model, pixels, recipe.commitment)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        used += torch.bincount(tokens.flatten(), minlength=len(used))
        log(loss=loss.item(), error=error.item(), codes=int((used > 0).sum()))
        if (step + 1) % recipe.revive_every == 0:
            if step < recipe.revive_until * recipe.steps:
                revive(model, used, latents, generator)
            used.zero_()

    with torch.no_grad():
        weight = model.quantize.embedding.weight
        weight.copy_(F.normalize(weight, dim=1))
    path = work / "vqvae.safetensors"
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, path)
    return path
