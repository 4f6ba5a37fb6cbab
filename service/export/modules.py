"""A loaded model as the modules that Triton serves: in TorchScript, or as programs for a compiler."""

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.jit import ScriptModule

from service.diffusion.compiled import CompiledStep
from service.diffusion.served import step_for
from service.diffusion.step import DiffusionStep
from service.export.files import Served, ServedModules
from service.export.programs import Calling, program_of
from service.models.folder import LoadedModel
from service.models.vqvae import VQVAE
from service.triton.contract import IMAGE_DECODER, IMAGE_ENCODER, TEXT_ENCODER, Shapes, diffusion_step


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


class ImageEncoder(nn.Module):
    """Served as ``image_encoder``: image UINT8 [B, H, W, 3] → tokens INT32 [B, L]. ``parts``: as in DiffusionStep."""

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.parts = 1

    def forward(self, image: Tensor) -> Tensor:
        size = (len(image) + self.parts - 1) // self.parts
        futures = [torch.jit.fork(self.read, part) for part in image.split(size)]
        return torch.cat([torch.jit.wait(future) for future in futures])

    def read(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.vqvae.encode(pixels).int()


def script(module: nn.Module) -> ScriptModule:
    """Scripted and frozen: weights become constants, so that the backend may fuse and fold. ``parts`` can be set.

    Not so the step: it gains no speed, and a copy of the network at each of its calls took a second more to load.
    """
    scripted: ScriptModule = torch.jit.script(module.eval())
    return scripted if isinstance(module, DiffusionStep) else torch.jit.freeze(scripted, preserved_attrs=["parts"])


def script_model(model: LoadedModel) -> ServedModules:
    """The modules of one model, whose transformer is fit for inference only afterwards."""
    return with_scripted(script(prepared_step(model)), model)


def with_scripted(step: Served, model: LoadedModel) -> ServedModules:
    """A step, and the other models scripted: they gain nothing from a compiler."""
    return ServedModules(
        diffusion_step=step,
        image_decoder=script(ImageDecoder(model.vqvae)),
        image_encoder=script(ImageEncoder(model.vqvae)),
        text_encoder=script(model.text) if model.text else None,
    )


def prepared_step(model: LoadedModel) -> DiffusionStep:
    model.transformer.prepare()
    return step_for(model.info.condition, model.transformer, model.info.codes, model.info.timesteps)


def program_step(model: LoadedModel, shapes: Shapes) -> ExportedProgram:
    """The step for compilers. The transformer is fit for inference only afterwards."""
    compiled = CompiledStep(prepared_step(model), model.info.condition).eval()
    return program_of(compiled, diffusion_step(model.info.condition), shapes)


def package_model(model: LoadedModel, shapes: Shapes) -> ServedModules:
    """The step as a program, the others scripted."""
    return with_scripted(program_step(model, shapes), model)


def program_model(model: LoadedModel, shapes: Shapes) -> ServedModules:
    """All as programs."""
    decoder, encoder, text = ImageDecoder(model.vqvae).eval(), ImageEncoder(model.vqvae).eval(), model.text
    return ServedModules(
        diffusion_step=program_step(model, shapes),
        image_decoder=program_of(Calling(decoder, decoder.draw), IMAGE_DECODER, shapes),
        image_encoder=program_of(Calling(encoder, encoder.read), IMAGE_ENCODER, shapes),
        text_encoder=program_of(Calling(text.eval(), text.states), TEXT_ENCODER, shapes) if text else None,
    )
