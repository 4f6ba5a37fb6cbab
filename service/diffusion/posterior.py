"""p(x_s | x_t) of mask-and-replace diffusion in O(K) per position, and sampling by inverse CDF."""

import torch
from torch import Tensor

from service.diffusion.schedule import Transition


def column(x: Tensor) -> Tensor:
    return x[:, None, None]


def posterior(p: Tensor, tokens: Tensor, to_x0: Tensor, q: Transition) -> Tensor:
    """p(x_s | x_t) FP32 [B, L, K+1], the mask last, from p(x_0) [B, L, K] and x_t INT64 [B, L].

    ``to_x0`` BOOL [B] marks rows whose s is -1: there p(x_s) = p.
    """
    codes = p.shape[-1]
    masked = (tokens == codes)[:, :, None]
    from_mask = column(q.gamma) * (column(q.alpha_s) * p + column(q.beta_s)) / column(q.gamma_t)
    stays_masked = (q.gamma_s / q.gamma_t)[:, None, None].expand(-1, p.shape[1], 1)

    own = tokens[:, :, None] == torch.arange(codes, device=tokens.device)
    w = p / torch.where(own, column(q.beta_t + q.alpha_t), column(q.beta_t))
    keeps = torch.where(own, column(q.beta + q.alpha), column(q.beta))
    from_code = keeps * (column(q.alpha_s) * w + column(q.beta_s) * w.sum(-1, keepdim=True))

    codes_part = torch.where(column(to_x0), p, torch.where(masked, from_mask, from_code))
    mask_part = torch.where(masked & ~column(to_x0), stays_masked, torch.zeros_like(stays_masked))
    return torch.cat([codes_part, mask_part], dim=-1)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """Inverse-CDF samples INT64 [B, L] from unnormalised p [B, L, N] with uniforms u [B, L].

    u are multiples of 2^-24 in [0, 1). Rounding in the sum can push a draw past the last bin; it then goes to the last
    bin of positive probability.
    """
    cdf = p.cumsum(-1)
    # u stands for the middle of its 2^-24: at its edge, u = 0 would draw a first code of p = e^-70 once in 2^24.
    total = cdf[:, :, -1:]
    target = (u[:, :, None] + 2.0**-25) * total
    # A search in the sorted sums, as counts of what is below: not every exporter has a search.
    return torch.minimum((cdf <= target).sum(-1), (cdf < total).sum(-1))
