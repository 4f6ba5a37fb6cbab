"""The fake's arithmetic as TorchScript modules, and a model description to export them under."""

import warnings

import torch
from samples import make_parameters
from torch import Tensor, nn

from service.diffusion.samplers import SAMPLERS
from service.export.files import ServedModules
from service.serving import ModelInfo
from service.triton.contract import Shapes

SHAPES = Shapes(tokens=12, text_positions=5, text_width=8, codes=10, image_height=6, image_width=8, max_batch_size=4)


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        s, d = torch.arange(input_ids.shape[1]), torch.arange(self.width)
        mixed = (31 * input_ids.long().unsqueeze(-1) + 7 * s.unsqueeze(-1) + d) % 97
        states = (mixed.float() / 97).half()
        empty = (attention_mask == 0).all(1)
        return torch.where(empty[:, None, None], torch.full_like(states, -1.0), states)


class Step(nn.Module):
    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codes = codes

    def forward(  # noqa: PLR0913, PLR0917  the contract's tensors
        self,
        tokens: Tensor,
        pinned: Tensor,
        contexts: Tensor,
        timestep: Tensor,
        timestep_next: Tensor,
        weights: Tensor,
        reveal: Tensor,
        remask: Tensor,
        revise: Tensor,
        reveal_score: Tensor,
        retire_score: Tensor,
        order: Tensor,
        sharpen: Tensor,
        temperature: Tensor,
        truncation: Tensor,
        purity_form: Tensor,
        uniforms: Tensor,
    ) -> tuple[Tensor, Tensor]:
        tokens = torch.where(pinned >= 0, pinned, tokens)
        for k in range(uniforms.shape[1]):
            masked = tokens == self.codes
            left = masked.sum(1)
            t, s = timestep[:, k].long(), timestep_next[:, k].long()
            share = -torch.div(-left * (t - s), t + 1, rounding_mode="floor")
            count = torch.where(reveal[:, k] >= 0, reveal[:, k].long(), share)
            order = torch.where(masked, uniforms[:, k, :, 1], torch.full_like(uniforms[:, k, :, 1], 2.0))
            rank = order.argsort(dim=1, stable=True).argsort(dim=1)
            chosen = masked & (rank < count.unsqueeze(1))
            codes = (uniforms[:, k, :, 0] * self.codes).clamp(max=self.codes - 1).int()
            tokens = torch.where(chosen, codes, tokens)
        return tokens, (1 - uniforms[:, -1, :, 0] / 2).half()


class Decoder(nn.Module):
    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, tokens: Tensor) -> Tensor:
        pixels = self.height * self.width
        source = torch.div(torch.arange(pixels) * tokens.shape[1], pixels, rounding_mode="floor")
        colours = tokens.long()[:, source].unsqueeze(-1) * torch.tensor([37, 74, 111]) % 256
        return colours.to(torch.uint8).reshape(-1, self.height, self.width, 3)


class ImageReader(nn.Module):
    """Which code's colour the first pixel of each position has."""

    def __init__(self, tokens: int, codes: int) -> None:
        super().__init__()
        self.tokens, self.codes = tokens, codes

    def forward(self, image: Tensor) -> Tensor:
        red = image.flatten(1, 2)[:, :, 0].long()
        first = -torch.div(-torch.arange(self.tokens) * red.shape[1], self.tokens, rounding_mode="floor")
        known = torch.arange(256) * 37 % 256
        codes = (red[:, first].unsqueeze(-1) == known).long().argmax(-1)
        return codes.clamp(max=self.codes - 1).int()


def scripted(step: nn.Module, decoder: nn.Module, reader: nn.Module, encoder: nn.Module) -> ServedModules:
    with warnings.catch_warnings():
        # torch deprecates TorchScript; Triton's backends still load nothing else.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ServedModules(*[torch.jit.script(module.eval()) for module in (step, decoder, reader, encoder)])


def tiny_modules() -> ServedModules:
    return scripted(
        Step(SHAPES.codes),
        Decoder(SHAPES.image_height, SHAPES.image_width),
        ImageReader(SHAPES.tokens, SHAPES.codes),
        Encoder(SHAPES.text_width),
    )


def tiny_info() -> ModelInfo:
    defaults = make_parameters(guidance_scale=2.0)
    return ModelInfo(
        name="tiny",
        sha256="0" * 64,
        description="arithmetic",
        licence="none",
        attributions=(),
        tokens=SHAPES.tokens,
        codes=SHAPES.codes,
        image_width=SHAPES.image_width,
        image_height=SHAPES.image_height,
        text_positions=SHAPES.text_positions,
        timesteps=100,
        prompt_template="{prompt}",
        defaults=defaults,
        ranges={},
        samplers=tuple(SAMPLERS),
    )
