"""Train the transformer with a learned null text: cross-entropy of x_0 alone, or VQ-Diffusion's full loss."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from service.diffusion.posterior import posterior
from service.diffusion.schedule import Schedule
from service.lab.training.codec import CONFIG as CODEC
from service.lab.training.data import TEXT_POSITIONS
from service.lab.training.loop import SavedRun, Stateful, training_steps
from service.models.transformer import TransformerConfig, VQTransformer
from service.models.vqvae import VQVAE

CONFIG = TransformerConfig(
    num_attention_heads=6,
    attention_head_dim=32,
    num_layers=6,
    cross_attention_dim=384,
    sample_size=8,
    num_vector_embeds=CODEC.num_vq_embeddings + 1,
    num_embeds_ada_norm=100,
)


@dataclass(frozen=True)
class DiffusionRecipe:
    """What decides the trained weights, beside the data and the codec."""

    steps: int = 6000
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    decay_share: float = 0.3
    replace: float = 0.03
    kept_weight: float = 0.02
    loss: Literal["simplified", "full"] = "simplified"
    auxiliary_weight: float = 5e-4
    null_share: float = 0.1
    label_share: float = 0.5
    style_share: float = 0.5
    rare_categories: tuple[str, ...] = ("People & Body", "Symbols")
    rare_weight: float = 0.5
    ema: float = 0.999
    seed: int = 0


class Denoiser(nn.Module):
    """The transformer and the learned null text states [S, D], trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = VQTransformer(CONFIG)
        self.null = nn.Parameter(torch.randn(TEXT_POSITIONS, CONFIG.cross_attention_dim) * 0.02)

    def forward(self, tokens: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """Logits [B, L, K]"""
        logits: Tensor = self.transformer(tokens, t, self.transformer.memory(states))
        return logits


@torch.inference_mode()
def tokenize(codec: Path, pixels: NDArray[np.uint8], batch: int = 128) -> Tensor:
    """Pixels uint8 [N, H, W, 3] to tokens [N, L] with the trained codec."""
    model = VQVAE(CODEC).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(codec).items()})
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return torch.cat([model.encode(part.float() / 127.5 - 1) for part in images.split(batch)])


def corrupt(tokens: Tensor, t: Tensor, replace: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(x_t, changed): each token masked with probability (t+1)/T, some of the others replaced at random."""
    mask = torch.rand(tokens.shape, generator=generator) < ((t + 1) / CONFIG.num_embeds_ada_norm)[:, None]
    swap = torch.rand(tokens.shape, generator=generator) < replace
    noise = torch.randint(CONFIG.codes, tokens.shape, generator=generator)
    noisy = torch.where(swap, noise, tokens).masked_fill(mask, CONFIG.codes)
    return noisy, mask | swap


def draw_captions(captions: Tensor, seen: Tensor, recipe: DiffusionRecipe, generator: torch.Generator) -> Tensor:
    """One caption index per picture, from captions [B, forms, 2] and which forms are in training, [B, forms].

    The plain name (form 0) half the time, the style named half the time.
    """
    rows = len(captions)
    label = torch.rand(rows, generator=generator) < recipe.label_share
    form = torch.multinomial(seen.float(), 1, generator=generator).flatten().masked_fill(label, 0)
    style = (torch.rand(rows, generator=generator) < recipe.style_share).long()
    return captions[torch.arange(rows), form, style]


def learning_rate(step: int, recipe: DiffusionRecipe) -> float:
    """Linear warm-up, constant, then linear decay to zero over the last ``decay_share`` of the run."""
    return recipe.learning_rate * min(
        1, (step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.decay_share * recipe.steps)
    )


class TrainingSet:
    """Tokens, caption indices and text states, from the folder of ``prepare_data``.

    Held-out pictures and wordings are left out; the recipe's rare categories (hardly legible at this size) are drawn
    less often.
    """

    def __init__(self, data: Path, codec: Path, recipe: DiffusionRecipe) -> None:
        pictures = np.load(data / "pictures.npz")
        kept = ~pictures["held_out"]
        rare = np.isin(pictures["categories"][kept], recipe.rare_categories)
        self.weights = torch.from_numpy(np.where(rare, recipe.rare_weight, 1.0))
        self.tokens = tokenize(codec, pictures["pixels"][kept])
        self.captions = torch.from_numpy(pictures["captions"][kept])
        self.seen = torch.from_numpy(~pictures["held_out_wordings"][kept])
        self.states = np.load(data / "states.npy", mmap_mode="r")

    def batch(self, recipe: DiffusionRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(tokens [B, L], text states [B, S, D])"""
        index = torch.multinomial(self.weights, recipe.batch, replacement=True, generator=generator)
        chosen = draw_captions(self.captions[index], self.seen[index], recipe, generator)
        return self.tokens[index], torch.from_numpy(self.states[chosen.numpy()]).float()


def drop(states: Tensor, null: Tensor, recipe: DiffusionRecipe, generator: torch.Generator) -> Tensor:
    """Text states of which a share of the rows has become the null."""
    dropped = torch.rand(len(states), generator=generator) < recipe.null_share
    return torch.where(dropped[:, None, None], null, states)


def simplified_loss(
    model: Denoiser, tokens: Tensor, states: Tensor, recipe: DiffusionRecipe, generator: torch.Generator
) -> Tensor:
    """Mean cross-entropy of x_0 over changed positions, plus a little on the unchanged ones."""
    t = torch.randint(CONFIG.num_embeds_ada_norm, (len(tokens),), generator=generator)
    noisy, changed = corrupt(tokens, t, recipe.replace, generator)
    logits = model(noisy, t, drop(states, model.null, recipe, generator))
    losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
    weight = changed + recipe.kept_weight * ~changed
    return (losses * weight).sum() / weight.sum()


def full_loss(
    model: Denoiser, tokens: Tensor, states: Tensor, recipe: DiffusionRecipe, generator: torch.Generator
) -> Tensor:
    """Variational bound per token, plus ``auxiliary_weight`` times the cross-entropy of x_0, both summed over t.

    T times KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) at a uniform t; x_t is drawn from the schedule (2111.14822,
    Eq. 9 and 12).
    """
    timesteps, codes = CONFIG.num_embeds_ada_norm, CONFIG.codes
    schedule = Schedule(timesteps, codes)
    t = torch.randint(timesteps, (len(tokens),), generator=generator)
    transition = schedule(t, t - 1)
    u = torch.rand(tokens.shape, generator=generator)
    noise = torch.randint(codes, tokens.shape, generator=generator)
    masked = transition.gamma_t[:, None]
    replaced = masked + codes * transition.beta_t[:, None]
    noisy = torch.where(u < replaced, noise, tokens).masked_fill(u < masked, codes)
    log_p = model(noisy, t, drop(states, model.null, recipe, generator)).log_softmax(-1)
    true = posterior(F.one_hot(tokens, codes).float(), noisy, t == 0, transition)
    predicted = posterior(log_p.exp(), noisy, t == 0, transition)
    divergence = (torch.xlogy(true, true) - torch.xlogy(true, predicted.clamp(min=1e-30))).sum(-1)
    auxiliary = F.nll_loss(log_p.flatten(0, 1), tokens.flatten())
    return timesteps * (divergence.mean() + recipe.auxiliary_weight * auxiliary)


LOSSES = {"simplified": simplified_loss, "full": full_loss}


def train_diffusion(data: Path, work: Path, recipe: DiffusionRecipe) -> Path:
    """Train (or resume) on the codec's tokens; write ``transformer.safetensors`` into ``work``. Returns its path."""
    torch.manual_seed(recipe.seed)
    examples = TrainingSet(data, work / "vqvae.safetensors", recipe)
    model = Denoiser()
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(recipe.seed)
    parts: dict[str, Stateful] = {"model": model, "average": average, "optimiser": optimiser}
    checkpoint = SavedRun(work / "diffusion.checkpoint.pt", parts, generator)

    for step, log in training_steps("diffusion", recipe.steps, checkpoint):
        optimiser.param_groups[0]["lr"] = learning_rate(step, recipe)
        loss = LOSSES[recipe.loss](model, *examples.batch(recipe, generator), recipe, generator)
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        log(loss=loss.item(), norm=norm.item())

    path = work / "transformer.safetensors"
    save_file({name: value.half().contiguous() for name, value in average.state_dict().items()}, path)
    return path
