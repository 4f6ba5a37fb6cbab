"""The peer: diffusers' VQDiffusionPipeline on the same weights, its own loop untouched."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
from torch import Tensor

from service.errors import SetupError
from service.lab.bench.bare import Bare
from service.messages import Parameters
from service.triton.contract import Float16

WHOLE = {"low_cpu_mem_usage": False}
"""The other way of loading needs a package more."""
PARTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "vqvae": (VQModel, WHOLE),
    "transformer": (Transformer2DModel, WHOLE),
    "scheduler": (VQDiffusionScheduler, {}),
}


class PipelineWithOurText(VQDiffusionPipeline):
    """The pipeline's own text encoder can only be CLIP; with this, both sides get the same states."""

    states: Callable[[list[str], list[None]], Float16]

    def _encode_prompt(self, prompt: list[str], num_images_per_prompt: int, guided: bool) -> Tensor:
        """What the pipeline's loop expects: null states first, then the prompts'."""
        states = torch.from_numpy(self.states(prompt, [None] * len(prompt))).to(self.transformer.dtype)
        return torch.cat([states[1::2], states[::2]]) if guided else states[::2]


class Peer:
    """The pipeline of a model folder, with the text encoder of ``bare``.

    ``dtype``: of the transformer. The codec stays float32, or the pipeline fails: it makes a NumPy array of what the
    codec draws, and NumPy knows no bfloat16. ``autocast``: float32 weights, and ``dtype`` where PyTorch thinks it
    safe.
    """

    def __init__(self, model: Path, bare: Bare, dtype: torch.dtype = torch.float32, autocast: bool = False) -> None:
        own = {"transformer": {"torch_dtype": torch.float32 if autocast else dtype}}
        parts = {
            part: kind.from_pretrained(model / part, **options, **own.get(part, {}))
            for part, (kind, options) in PARTS.items()
        }
        absent = dict.fromkeys(("text_encoder", "tokenizer", "learned_classifier_free_sampling_embeddings"))
        if autocast:
            parts["transformer"].forward = torch.autocast("cpu", dtype)(parts["transformer"].forward)
        kind: Any = PipelineWithOurText
        self.pipeline = kind(**parts, **absent)
        self.pipeline.states = bare.states
        self.pipeline.set_progress_bar_config(disable=True)

    def seconds(self, prompts: list[str], evaluations: int, parameters: Parameters) -> float:
        """One call of the pipeline: encode, ``evaluations`` steps, decode. Raises SetupError when it makes too few."""
        began = time.perf_counter()
        pictures = self.pipeline(
            prompts,
            num_inference_steps=evaluations,
            guidance_scale=parameters.guidance_scale,
            truncation_rate=parameters.truncation_rate,
            output_type="np",
        ).images
        seconds = time.perf_counter() - began
        if len(pictures) != len(prompts):
            raise SetupError(f"diffusers made {len(pictures)} pictures of {len(prompts)} prompts")
        return seconds
