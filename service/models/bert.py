"""BERT-type sentence encoders, such as the bundled model's MiniLM."""

from torch import Tensor, nn

from service.models.text_encoder import Attend, TextConfig, activate


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
