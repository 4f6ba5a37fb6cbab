"""What a converted folder holds beside weights: card, scheduler, index and the names of the classes."""

from pathlib import Path

from service.condition import Condition
from service.models.card import LABELS_FILE, Card, SamplingDefaults
from service.models.convert.parts import write_json
from service.models.folder import NULL_FOLDER, scheduler_config
from service.models.transformer import DIFFUSERS, TransformerConfig

PIPELINE = "diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion"
"""Where diffusers finds the null's class; it cannot load it from "diffusers", which it writes itself."""
PUBLISHED = {
    Condition.TEXT: SamplingDefaults(guidance_scale=3.0),
    Condition.LABEL: SamplingDefaults(guidance_scale=1.5, truncation_rate=0.94),
    Condition.NONE: SamplingDefaults(guidance_scale=1.0),
}
"""The papers' settings."""


def write_papers(folder: Path, network: TransformerConfig, name: str, normalize: bool, labels: list[str]) -> None:
    """``normalize``: of text states; ``labels``: names of the classes, or none."""
    (folder / "scheduler").mkdir(parents=True)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(network))
    write_json(folder / "model_index.json", index_of(network))
    card = Card(
        name=name,
        description="converted from an official VQ-Diffusion checkpoint",
        normalize_states=normalize,
        defaults=PUBLISHED[network.condition],
    )
    (folder / "vqd.json").write_text(card.model_dump_json(indent=2) + "\n")
    if labels:
        write_json(folder / LABELS_FILE, labels)


def index_of(network: TransformerConfig) -> dict[str, object]:
    """``model_index.json``, by which diffusers knows its pipeline where it has the network's class."""
    own = network.class_name != DIFFUSERS
    index: dict[str, object] = {
        "_class_name": "VQDiffusionPipeline",
        "transformer": ["vqd" if own else "diffusers", network.class_name],
        "vqvae": ["diffusers", "VQModel"],
        "scheduler": ["diffusers", "VQDiffusionScheduler"],
    }
    if network.condition is Condition.TEXT:
        index["text_encoder"] = ["transformers", "CLIPTextModel"]
        index["tokenizer"] = ["transformers", "CLIPTokenizer"]
        index[NULL_FOLDER] = [PIPELINE, "LearnedClassifierFreeSamplingEmbeddings"]
    return index
