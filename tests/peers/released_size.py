"""A text model of the released size with random weights: 19 blocks of 1,024, 1,024 tokens, 256x256 pixels.

``python tests/peers/released_size.py FOLDER`` writes it, 1.9 GB in float32; no test does.
"""

import json
import sys
from pathlib import Path

from peers.pipeline_folder import START, clip_vocabulary, write_clip_tokenizer
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from service.models.transformer import TransformerConfig, VQTransformer
from service.models.vqvae import VQVAE, VQConfig

NETWORK = TransformerConfig(
    num_attention_heads=16,
    attention_head_dim=64,
    num_layers=19,
    cross_attention_dim=512,
    sample_size=32,
    num_vector_embeds=2888,
    num_embeds_ada_norm=100,
)
CODEC = VQConfig(
    block_out_channels=(128, 128, 256, 512),
    num_vq_embeddings=NETWORK.codes,
    latent_channels=256,
    vq_embed_dim=256,
    sample_size=256,
    layers_per_block=2,
    down_attention=(False, False, False, True),
    up_attention=(True, False, False, False),
)
TEXT = CLIPTextConfig(vocab_size=len(clip_vocabulary()), eos_token_id=clip_vocabulary()[START] + 1, pad_token_id=0)


def write_part(folder: Path, module: nn.Module, config: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def write_released_size(folder: Path) -> None:
    write_part(folder / "transformer", VQTransformer(NETWORK), NETWORK.to_diffusers())
    write_part(folder / "vqvae", VQVAE(CODEC), CODEC.to_diffusers())
    CLIPTextModel(TEXT).save_pretrained(folder / "text_encoder")
    write_clip_tokenizer(folder / "tokenizer", TEXT.max_position_embeddings)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"num_train_timesteps": 100}))


if __name__ == "__main__":
    write_released_size(Path(sys.argv[1]))
