"""The networks that the GPU programme measures: the released shapes with random weights, and the bundled model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from service.condition import Condition
from service.diffusion.served import step_for
from service.diffusion.step import DiffusionStep
from service.models.transformer import ClassTransformer, TransformerConfig, VQTransformer

BUNDLED = Path(__file__).parents[3] / "reference/transformer"
TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""tf32: float32 whose products the tensor cores make."""


def compute_in(dtype: str) -> None:
    """float32 stays float32 unless tf32 is wanted; convolutions take no kernel whose sums change from run to run."""
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.deterministic = True


@dataclass(frozen=True)
class Network:
    """``texts``: positions of the text states, for models of text. ``evaluations``: of a picture as published."""

    name: str
    config: TransformerConfig
    texts: int
    evaluations: int
    folder: Path | None = None

    def build(self, device: str) -> VQTransformer:
        """With random weights, in float32."""
        kind = VQTransformer if self.config.condition is Condition.TEXT else ClassTransformer
        torch.manual_seed(0)
        with torch.device(device):
            return kind(self.config)

    def transformer(self, device: str) -> VQTransformer:
        """In float32."""
        network = self.build(device)
        if self.folder:
            network.load_state_dict(load_file(self.folder / "diffusion_pytorch_model.safetensors"))
        return network.eval().requires_grad_(False)

    def step(
        self, device: str, dtype: str, change: Callable[[VQTransformer], object] = lambda _: None
    ) -> DiffusionStep:
        """Ready to run. ``change`` is made to the network at last."""
        compute_in(dtype)
        network = self.transformer(device).to(TYPES[dtype])
        network.prepare()
        change(network)
        step = step_for(self.config.condition, network, self.config.codes, self.config.timesteps)
        return step.to(device).eval()

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of one pass: twice the multiplications. Counted on shapes alone."""
        network = self.build("meta")
        tokens = torch.zeros([1, self.config.tokens], dtype=torch.long, device="meta")
        with FlopCounterMode(display=False) as counter:
            network(tokens, tokens[:, 0], network.memory(self.conditions(1, "meta")))
        return int(counter.get_total_flops())

    @property
    def weights(self) -> int:
        return sum(weight.numel() for weight in self.build("meta").parameters())

    def conditions(self, count: int, device: str = "cpu") -> Tensor:
        """What ``count`` pairs are conditioned on, any."""
        if self.config.condition is Condition.TEXT:
            return torch.zeros([count, self.texts, self.config.text_width], device=device)
        return torch.zeros([count], dtype=torch.long, device=device)


def released(name: str, heads: int, head: int, layers: int, codes: int) -> Network:
    """A network of text, 32x32 tokens, CLIP's 77 states of 512."""
    config = TransformerConfig(heads, head, layers, 512, 32, codes + 1, 100)
    return Network(name, config, 77, 100)


def networks() -> list[Network]:
    bundled = TransformerConfig.from_diffusers(json.loads((BUNDLED / "config.json").read_text()))
    imagenet = TransformerConfig(16, 32, 24, 0, 16, 975, 100, num_classes=1000, position_size=32, convolution=True)
    return [
        released("ithq", 16, 88, 36, 4096),
        Network("bundled", bundled, 24, 16, BUNDLED),
        released("coco", 16, 64, 19, 2887),
        Network("imagenet", imagenet, 0, 100),
    ]


TINY = Network("tiny", TransformerConfig(2, 8, 2, 16, 4, 33, 100), 5, 4)
"""For the test of the programme itself."""
