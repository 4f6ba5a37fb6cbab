"""Trained weights to a model folder."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from service.errors import SetupError
from service.lab.training import codec, diffusion
from service.models.card import REFERENCE, load_card
from service.models.folder import save_model
from service.models.vqvae import VQVAE


def assemble(work: Path, to: Path) -> Path:
    """Write ``to`` from ``work``'s codec and transformer, with the bundled model's ``vqd.json`` and model card."""
    for name in ("vqvae.safetensors", "transformer.safetensors"):
        if not (work / name).exists():
            raise SetupError(f"{work / name} is missing: run `vqd train codec` and `vqd train diffusion` first")
    vqvae, denoiser = VQVAE(codec.CONFIG), diffusion.Denoiser()
    for module, name in ((vqvae, "vqvae"), (denoiser, "transformer")):
        module.load_state_dict({k: v.float() for k, v in load_file(work / f"{name}.safetensors").items()})
    with torch.no_grad():
        parts = ((denoiser.transformer, diffusion.CONFIG), (vqvae, codec.CONFIG))
        save_model(to, load_card(REFERENCE), *parts, null=denoiser.null.detach())
    if to.resolve() != REFERENCE.resolve() and (REFERENCE / "README.md").exists():
        shutil.copy(REFERENCE / "README.md", to / "README.md")
    return to
