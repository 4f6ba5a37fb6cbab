"""Records that many tests need, complete, with what matters to the test named by the caller."""

from service.diffusion.samplers import SAMPLERS
from service.messages import ImageFormat, Parameters, PurityForm
from service.serving import ModelInfo


def make_parameters(**changes: object) -> Parameters:
    """Plain purity sampling, guided; four evaluations of four tokens."""
    fields: dict[str, object] = {
        "guidance_scale": 3.0,
        "purity_r": 1.0,
        "purity_form": PurityForm.LINEAR,
        "tokens_per_step": 4,
        "steps": 4,
        "sampler": "purity",
        "truncation_rate": 1.0,
        "temperature": 1.0,
        "final_resample": True,
        "seed": 0,
        "n": 1,
        "format": ImageFormat.PNG,
    }
    return Parameters.model_validate(fields | changes)


def make_info(**changes: object) -> ModelInfo:
    """A small text model."""
    fields: dict[str, object] = {
        "name": "m",
        "sha256": "0" * 64,
        "description": "",
        "licence": "",
        "attributions": (),
        "tokens": 16,
        "codes": 8,
        "image_width": 8,
        "image_height": 8,
        "text_positions": 6,
        "timesteps": 100,
        "prompt_template": "{prompt}",
        "defaults": make_parameters(),
        "ranges": {},
        "samplers": tuple(SAMPLERS),
    }
    return ModelInfo.model_validate(fields | changes)
