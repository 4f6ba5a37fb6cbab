"""The module that Triton serves as ``diffusion_step``: k evaluations of network and sampler, as one function."""

from typing import Final

import torch
from torch import Tensor, nn

from service.diffusion.guidance import guide, normalise, temper, truncate
from service.diffusion.posterior import draw, posterior
from service.diffusion.purity import BY_PURITY, choose_positions, purity_of, sharpen
from service.diffusion.schedule import Schedule
from service.models.transformer import VQTransformer


class DiffusionStep(nn.Module):
    """x_t to x_s for a batch whose rows differ in everything but shapes. Pure: all randomness is ``uniforms``.

    ``parts``: the network's batch is cut into so many, which run side by side in TorchScript's inter-op threads. On a
    CPU, one part per core with one intra-op thread each beats all cores on every operator: nothing waits in between.
    """

    by_purity: Final[int] = BY_PURITY  # TorchScript reads no module globals

    def __init__(self, transformer: VQTransformer, codes: int, timesteps: int) -> None:
        super().__init__()
        self.parts = 1
        self.codes = codes
        self.transformer = transformer
        self.schedule = Schedule(timesteps, codes)

    def memory(self, context: Tensor) -> list[Tensor]:
        """Keys and values for text states [B, S, D], one tensor for each part of the batch."""
        if self.parts == 1:  # on a GPU another thread would be on another stream
            return [self.transformer.memory(context)]
        size = (context.shape[0] + self.parts - 1) // self.parts
        futures = [torch.jit.fork(self.transformer.memory, part) for part in context.split(size)]
        return [torch.jit.wait(future) for future in futures]

    def denoise(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        return normalise(self.transformer(tokens, timestep, memory))

    def denoise_parts(self, tokens: Tensor, timestep: Tensor, memory: list[Tensor]) -> Tensor:
        """log p(x_0) FP32 [B, L, K] of the network."""
        if len(memory) == 1:
            return self.denoise(tokens, timestep, memory[0])
        sizes = [part.shape[2] for part in memory]
        parts = zip(tokens.split(sizes), timestep.split(sizes), memory)  # noqa: B905  TorchScript knows no strict
        futures = [torch.jit.fork(self.denoise, x, t, part) for x, t, part in parts]
        return torch.cat([torch.jit.wait(future) for future in futures])

    def predict(
        self, tokens: Tensor, timestep: Tensor, memory: list[Tensor], guided: Tensor, scale: Tensor, truncation: Tensor
    ) -> Tensor:
        """log p(x_0) FP32 [B, L, K] after guidance and truncation. Rows ``guided`` INT64 [G] pay for a null pass."""
        rows = tokens.shape[0]
        both = self.denoise_parts(torch.cat([tokens, tokens[guided]]), torch.cat([timestep, timestep[guided]]), memory)
        log_p = both[:rows]
        if guided.shape[0] > 0:
            log_p = log_p.index_copy(0, guided, guide(log_p[guided], both[rows:], scale[guided]))
        if bool((truncation < 1).any()):
            log_p = torch.where((truncation < 1)[:, None, None], truncate(log_p, truncation), log_p)
        return log_p

    def ancestral(self, log_p: Tensor, tokens: Tensor, timestep: Tensor, timestep_next: Tensor, u: Tensor) -> Tensor:
        """Every position from p(x_s | x_t)."""
        transition = self.schedule(timestep, timestep_next)
        return draw(posterior(log_p.exp(), tokens, timestep_next < 0, transition), u)

    def forward(  # noqa: PLR0913, PLR0917  the contract's tensors
        self,
        tokens: Tensor,
        pinned: Tensor,
        context: Tensor,
        null_context: Tensor,
        timestep: Tensor,
        timestep_next: Tensor,
        reveal: Tensor,
        guidance: Tensor,
        selection: Tensor,
        purity_r: Tensor,
        temperature: Tensor,
        truncation: Tensor,
        purity_form: Tensor,
        uniforms: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes and types as in the Triton contract; returns (tokens_out INT32 [B, L], purity FP16 [B, L])."""
        x = torch.where(pinned >= 0, pinned, tokens).long()
        guided = (guidance != 1).any(1).nonzero().flatten()
        memory = self.memory(torch.cat([context, null_context[guided]]).float())
        r, form, by_purity = purity_r[:, 0], purity_form[:, 0], selection == self.by_purity
        purity = torch.zeros_like(uniforms[:, 0, :, 0])
        for e in range(timestep.shape[1]):
            t, t_next, count = timestep[:, e].long(), timestep_next[:, e].long(), reveal[:, e]
            u_code, u_place = uniforms[:, e, :, 0], uniforms[:, e, :, 1]
            log_p = self.predict(x, t, memory, guided, guidance[:, e], truncation[:, 0])
            purity = purity_of(log_p)
            # Eq. 11 belongs to the purity sampler; r = 0 leaves log p as it is.
            r_used = torch.where(by_purity[:, 0], r, torch.zeros_like(r))
            code = draw(temper(sharpen(log_p, purity, r_used, form), temperature[:, 0]).exp(), u_code)
            weight = torch.where(by_purity, purity, torch.ones_like(purity))
            here = choose_positions(weight, x == self.codes, count, u_place)
            revealed = torch.where(here, code, x)
            if bool((count < 0).any()):
                tempered = temper(log_p, temperature[:, 0])
                revealed = torch.where(count[:, None] < 0, self.ancestral(tempered, x, t, t_next, u_code), revealed)
            x = torch.where(pinned >= 0, pinned.long(), revealed)
        return x.int(), purity.half()
