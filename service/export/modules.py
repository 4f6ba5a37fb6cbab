"""A loaded model as the TorchScript modules that Triton serves."""

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from service.diffusion.step import DiffusionStep
from service.export.files import ScriptedModules
from service.models.folder import LoadedModel
from service.models.vqvae import VQVAE


class ImageDecoder(nn.Module):
    """Served as ``image_decoder``: tokens INT32 [B, L] → image UINT8 [B, H, W, 3]. ``parts``: as in DiffusionStep."""

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.parts = 1
        self.codes = vqvae.quantize.embedding.num_embeddings

    def forward(self, tokens: Tensor) -> Tensor:
        size = (len(tokens) + self.parts - 1) // self.parts
        futures = [torch.jit.fork(self.draw, part) for part in tokens.split(size)]
        return torch.cat([torch.jit.wait(future) for future in futures])

    def draw(self, tokens: Tensor) -> Tensor:
        # Masked positions of a preview have no code; they are drawn as code 0 rather than refused.
        pixels = self.vqvae.decode(torch.where(tokens < self.codes, tokens, 0).long())
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def script(module: nn.Module) -> ScriptModule:
    """Scripted and frozen: weights become constants, so that the backend may fuse and fold. ``parts`` can be set.

    Not so the step: it gains no speed, and a copy of the network at each of its calls took a second more to load.
    """
    scripted: ScriptModule = torch.jit.script(module.eval())
    return scripted if isinstance(module, DiffusionStep) else torch.jit.freeze(scripted, preserved_attrs=["parts"])


def script_model(model: LoadedModel) -> ScriptedModules:
    """The three modules of one model, whose transformer is fit for inference only afterwards."""
    assert model.text is not None
    model.transformer.prepare()
    step = DiffusionStep(model.transformer, model.info.codes, model.info.timesteps)
    return ScriptedModules(
        text_encoder=script(model.text), diffusion_step=script(step), image_decoder=script(ImageDecoder(model.vqvae))
    )
