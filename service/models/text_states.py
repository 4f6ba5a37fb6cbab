"""What Triton serves as ``text_encoder``: an encoder of any family, with the model's null."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextStates(nn.Module):
    """(input_ids, attention_mask) INT32 [B, S] → states FP16 [B, S, D].

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
