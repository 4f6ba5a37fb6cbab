"""The CLIP text model of the released VQ-Diffusion checkpoints."""

import torch
from torch import Tensor, nn

from service.models.text_encoder import Attend, TextConfig, activate


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
