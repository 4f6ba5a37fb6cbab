"""Text encoders: token ids to one state per position, for cross-attention.

Two families: the CLIP text model of the released VQ-Diffusion checkpoints, and BERT-type sentence encoders (MiniLM).
Parameter names are those of Hugging Face transformers, so their safetensors load unchanged.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TextConfig:
    """The fields of a transformers text config that these encoders honour."""

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str

    @classmethod
    def from_transformers(cls, config: dict[str, Any]) -> "TextConfig":
        """Read a transformers ``config.json``. Raises ValueError for a family or activation not implemented."""
        family = str(config.get("model_type", ""))
        if family not in ("bert", "clip_text_model"):
            raise ValueError(f"model_type is {family!r}; supported: bert, clip_text_model")
        act = config["hidden_act"]
        if act not in ("gelu", "quick_gelu"):
            raise ValueError(f"hidden_act is {act!r}; supported: gelu, quick_gelu")
        sizes = {k: config[k] for k in cls.__annotations__ if k not in ("family", "hidden_act")}
        return cls(family=family, hidden_act=act, **sizes)


def activate(x: Tensor, quick: bool) -> Tensor:
    return x * torch.sigmoid(1.702 * x) if quick else F.gelu(x)


class Attend(nn.Module):
    """Scaled dot-product attention over [B, S, C] projections, with an additive mask."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        b, s, c = q.shape
        q, k, v = [x.reshape(b, s, self.heads, c // self.heads).transpose(1, 2) for x in (q, k, v)]
        scores = q @ k.transpose(2, 3) * (c // self.heads) ** -0.5 + mask
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, s, c)


class BertSelfAttention(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.query = nn.Linear(c.hidden_size, c.hidden_size)
        self.key = nn.Linear(c.hidden_size, c.hidden_size)
        self.value = nn.Linear(c.hidden_size, c.hidden_size)
        self.attend = Attend(c.num_attention_heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.attend(self.query(x), self.key(x), self.value(x), mask)


class BertOutput(nn.Module):
    """Projection, residual, LayerNorm."""

    def __init__(self, width: int, c: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class BertAttention(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(c)
        self.output = BertOutput(c.hidden_size, c)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class BertIntermediate(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.intermediate_size)
        self.quick = c.hidden_act == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.dense(x), self.quick)


class BertLayer(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.attention = BertAttention(c)
        self.intermediate = BertIntermediate(c)
        self.output = BertOutput(c.intermediate_size, c)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class BertEmbeddings(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position_embeddings = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_type_embeddings = nn.Embedding(2, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])


class BertEncoder(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([BertLayer(c) for _ in range(c.num_hidden_layers)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class BertText(nn.Module):
    """BERT without pooler: ids and mask [B, S] to the last hidden states [B, S, D]."""

    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(c)
        self.encoder = BertEncoder(c)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e9
        return self.encoder(self.embeddings(ids), mask)


class ClipAttention(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.q_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.k_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.v_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.out_proj = nn.Linear(c.hidden_size, c.hidden_size)
        self.attend = Attend(c.num_attention_heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.out_proj(self.attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), mask))


class ClipMLP(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc2 = nn.Linear(c.intermediate_size, c.hidden_size)
        self.quick = c.hidden_act == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(activate(self.fc1(x), self.quick))


class ClipLayer(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = ClipAttention(c)
        self.layer_norm2 = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.mlp = ClipMLP(c)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position_embedding = nn.Embedding(c.max_position_embeddings, c.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class ClipEncoder(nn.Module):
    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(c) for _ in range(c.num_hidden_layers)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return x


class ClipText(nn.Module):
    """CLIP text transformer: ids [B, S] to the last hidden states [B, S, D]. Causal; padding is read, as released."""

    def __init__(self, c: TextConfig) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(c)
        self.encoder = ClipEncoder(c)
        self.final_layer_norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        s = ids.shape[1]
        causal = torch.full([s, s], -1e9, device=ids.device).triu(1)
        return self.final_layer_norm(self.encoder(self.embeddings(ids), causal))


def build_text_encoder(c: TextConfig) -> nn.Module:
    """The encoder of the config's family, with random weights."""
    return BertText(c) if c.family == "bert" else ClipText(c)


class TextStates(nn.Module):
    """What Triton serves as ``text_encoder``: (input_ids, attention_mask) INT32 [B, S] → states FP16 [B, S, D].

    ``normalize`` divides each state by its norm, as VQ-Diffusion does with CLIP; otherwise states of padding are zero.
    A row whose mask is all zero gets ``null``: the learned null vectors [S, D], or the empty string's states.
    ``parts``: as in DiffusionStep.
    """

    null: Tensor

    def __init__(self, encoder: nn.Module, null: Tensor, normalize: bool) -> None:
        super().__init__()
        self.encoder, self.normalize = encoder, normalize
        self.parts = 1
        self.register_buffer("null", null)

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(ids, mask)
        if self.normalize:
            return F.normalize(states, dim=-1)
        return states * mask[:, :, None]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        size = (len(input_ids) + self.parts - 1) // self.parts
        parts = zip(input_ids.split(size), attention_mask.split(size))  # noqa: B905  TorchScript knows no strict
        futures = [torch.jit.fork(self.states, ids, mask) for ids, mask in parts]
        return torch.cat([torch.jit.wait(future) for future in futures])

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        empty = attention_mask.sum(1) == 0
        # An all-masked row would be a softmax over nothing; it is replaced below, so let it attend to everything.
        mask = torch.where(empty[:, None], torch.ones_like(attention_mask), attention_mask)
        states = self.encode(input_ids, mask)
        return torch.where(empty[:, None, None], self.null.to(states.dtype), states).half()
