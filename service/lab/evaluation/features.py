"""The judge: a small network that puts pictures of one emoji close together, whatever their style. Not Inception.

Trained here on every picture, held-out ones too, for it must know what it is asked to recognise; the model under test
never sees it. Distances in its features compare settings of one model, and nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from service.errors import SetupError
from service.lab.training.loop import SavedRun, Stateful, training_steps

WIDTH = 128
FEATURES = Path(__file__).parent / "features.safetensors"
"""The judge that ships: figures of different days must be held against one yardstick."""


@dataclass(frozen=True)
class FeaturesRecipe:
    """What decides the judge, beside the data."""

    steps: int = 1500
    emoji: int = 96
    """Per batch, each in every style and seen ``views`` times."""
    views: int = 2
    learning_rate: float = 2e-3
    temperature: float = 0.1
    shift: int = 3
    noise: float = 0.08
    seed: int = 0


class Features(nn.Module):
    """Pixels [B, 3, 32, 32] in [-1, 1] to unit features [B, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128), (128, 192)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192 * 4, WIDTH))

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.layers(pixels), dim=1)


def disturb(pixels: Tensor, recipe: FeaturesRecipe, generator: torch.Generator) -> Tensor:
    """Shifted, made darker or lighter, blurred or noisy: what a codec and a sampler do to a picture, and more."""
    rows = len(pixels)
    padded = F.pad(pixels, [recipe.shift] * 4, value=1.0)
    top, left = torch.randint(2 * recipe.shift + 1, (2, rows), generator=generator)
    lines = torch.arange(pixels.shape[-1])
    row, column = (top[:, None] + lines)[:, None, :, None], (left[:, None] + lines)[:, None, None, :]
    shifted = padded[torch.arange(rows)[:, None, None, None], torch.arange(3)[:, None, None], row, column]
    blurred = F.avg_pool2d(F.pad(shifted, [1] * 4, mode="replicate"), 3, stride=1)
    share = torch.rand(rows, 1, 1, 1, generator=generator)
    gain = 1 + 0.2 * (torch.rand(rows, 3, 1, 1, generator=generator) - 0.5)
    level = recipe.noise * torch.rand(rows, 1, 1, 1, generator=generator)
    noise = level * torch.randn(pixels.shape, generator=generator)
    return (shifted.lerp(blurred, share) * gain + noise).clamp(-1, 1)


def contrast(features: Tensor, emoji: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (arXiv 2004.11362, Eq. 2): pictures of one emoji attract, all others repel."""
    itself = torch.eye(len(emoji), dtype=torch.bool)
    logits = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    same = (emoji[:, None] == emoji[None]) & ~itself
    log_p = logits.log_softmax(1).masked_fill(~same, 0.0)
    return -(log_p.sum(1) / same.sum(1)).mean()


def train_features(data: Path, work: Path, recipe: FeaturesRecipe) -> Path:
    """Train (or resume) the judge and write ``features.safetensors`` into ``work``. Returns its path."""
    pictures = np.load(data / "pictures.npz")
    owners = emoji_of(pictures["names"].tolist())
    images = torch.from_numpy(pictures["pixels"]).permute(0, 3, 1, 2)
    places = [torch.nonzero(owners == emoji).flatten() for emoji in range(int(owners.max()) + 1)]
    torch.manual_seed(recipe.seed)
    model = Features()
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(recipe.seed)
    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser}
    for step, log in training_steps(
        "features", recipe.steps, SavedRun(work / "features.checkpoint.pt", parts, generator)
    ):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
        chosen = torch.randperm(len(places), generator=generator)[: recipe.emoji]
        index = torch.cat([places[emoji] for emoji in chosen]).repeat(recipe.views)
        views = disturb(images[index].float() / 127.5 - 1, recipe, generator)
        loss = contrast(model(views), owners[index], recipe.temperature)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        log(loss=loss.item())
    path = work / "features.safetensors"
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    return path


def load_features(path: Path) -> Features:
    model = Features().eval().requires_grad_(False)
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model


class Inception(nn.Module):
    """A TorchScript file of the caller's, UINT8 [B, 3, H, W] to features [B, D]: for a real FID."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = torch.jit.load(str(path)).eval()
        names = [argument.name for argument in self.network.forward.schema.arguments]
        self.options = {"return_features": True} if "return_features" in names else {}

    def forward(self, pixels: Tensor) -> Tensor:
        """[-1, 1] as for Features."""
        features: Tensor = self.network(((pixels + 1) * 127.5).round().byte(), **self.options)
        return features.float()


def load_inception(path: Path) -> Inception:
    """Raises SetupError when it is no TorchScript file."""
    try:
        return Inception(path)
    except (RuntimeError, ValueError) as error:
        raise SetupError(f"--inception {path}: not a TorchScript file ({str(error).splitlines()[0]})") from None


def emoji_of(names: list[str]) -> Tensor:
    """Names such as ``1F34E google`` to a number per emoji, INT64 [N], the same in every style."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name.split()[0], len(numbers)) for name in names])


@torch.inference_mode()
def features_of(model: nn.Module, pixels: Tensor, batch: int = 256) -> Tensor:
    """UINT8 [N, H, W, 3] to unit features [N, WIDTH]."""
    images = pixels.permute(0, 3, 1, 2)
    return torch.cat([model(part.float() / 127.5 - 1) for part in images.split(batch)])
