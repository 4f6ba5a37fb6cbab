"""diffusers' pipeline on the same device, weights and number of evaluations, where diffusers can be imported."""

from typing import Any

import torch
from torch import Tensor

from service.condition import Condition
from service.lab.bench.gpu.measure import seconds
from service.lab.bench.gpu.networks import TYPES, Network, compute_in

try:
    from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
except ImportError:  # the programme runs without
    VQDiffusionPipeline = None

EVALUATIONS = 2


def has_network(network: Network) -> bool:
    """Whether diffusers is here, and has such a network."""
    return VQDiffusionPipeline is not None and network.config.condition is Condition.TEXT


def pipeline_of(network: Network, device: str, dtype: str) -> Any:
    """Its own loop, transformer and scheduler; the texts' states are zeros, the decoder a small one."""

    class WithoutText(VQDiffusionPipeline):
        def _encode_prompt(self, prompt: list[str], images: int, guided: bool) -> Tensor:
            size = [2 * len(prompt), network.texts, network.config.text_width]
            return torch.zeros(size, device=device, dtype=TYPES[dtype])

    with torch.device(device):
        transformer = Transformer2DModel.from_config(network.config.to_diffusers())
        decoder = VQModel(num_vq_embeddings=network.config.codes, latent_channels=32, vq_embed_dim=32)
    transformer.load_state_dict(network.transformer(device).state_dict())
    absent = dict.fromkeys(("text_encoder", "tokenizer", "learned_classifier_free_sampling_embeddings"))
    scheduler = VQDiffusionScheduler(num_vec_classes=network.config.codes + 1)
    found: Any = WithoutText
    pipeline = found(vqvae=decoder, transformer=transformer.to(TYPES[dtype]).eval(), scheduler=scheduler, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def evaluation_seconds(device: str, dtype: str, rows: int, pipeline: Any) -> float:
    """Of one guided evaluation of a batch: of a run of two, so that its beginning and end count for little."""
    compute_in(dtype)

    def call() -> None:
        pipeline(["text"] * rows, num_inference_steps=EVALUATIONS, guidance_scale=3.0, output_type="np")

    return seconds(call, device) / EVALUATIONS
