"""The module that Triton serves as ``diffusion_step``: k evaluations of network and sampler, as one function."""

from typing import Final, Protocol

import torch
from torch import Tensor, nn

from service.diffusion.guidance import guide, normalise, power, truncate
from service.diffusion.posterior import draw, posterior
from service.diffusion.purity import POWER, choose_positions, purity_of, sharpness
from service.diffusion.samplers import Selection
from service.diffusion.schedule import Schedule


class Denoiser(Protocol):
    """What the step asks of a network, which is a scriptable ``nn.Module``; any other network may stand behind it."""

    def prepare(self) -> None:
        """Make ready for inference, and for that alone. Called once, before scripting."""

    def memory(self, context: Tensor) -> Tensor:
        """What does not depend on x_t or t, from text states [B, S, D]: of six dimensions, B being the third."""

    def __call__(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        """x_t INT64 [B, L] with mask K, timestep INT64 [B], ``memory``'s answer → logits of x_0 FP32 [B, L, K]."""


class DiffusionStep(nn.Module):
    """x_t to x_s for a batch whose rows differ in everything but shapes. Pure: all randomness is ``uniforms``.

    ``parts``: the batch is cut into so many, which run side by side in TorchScript's inter-op threads. On a CPU, one
    part per core with one intra-op thread each beats all cores on every operator: nothing waits in between. Where the
    rows do not come out even, only the network's batch is cut, into which a guided row brings two.
    """

    by_purity: Final[int] = int(Selection.PURITY)  # TorchScript reads no module globals
    power_form: Final[int] = POWER

    def __init__(self, transformer: Denoiser, codes: int, timesteps: int) -> None:
        super().__init__()
        self.parts = 1
        self.codes = codes
        self.transformer = transformer
        self.schedule = Schedule(timesteps, codes)

    def memory(self, context: Tensor, null: Tensor, parts: int) -> list[Tensor]:
        """Keys and values for text states [B, S, D] and [G, S, D], one tensor for each of ``parts`` of B + G rows."""
        both = torch.cat([context, null])
        if parts == 1:
            if null.shape[0] > 1 and bool((null == null[:1]).all()):  # as a rule, the model's own null
                known = self.transformer.memory(both[: context.shape[0] + 1])
                last = known[:, :, -1:].expand(-1, -1, null.shape[0] - 1, -1, -1, -1)
                return [torch.cat([known, last], 2)]
            return [self.transformer.memory(both)]
        size = (both.shape[0] + parts - 1) // parts
        futures = [torch.jit.fork(self.transformer.memory, part) for part in both.split(size)]
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

    def sharpness(self, purity: Tensor, r: Tensor, form: Tensor) -> Tensor:
        return sharpness(purity, r, form, self.power_form)

    def ancestral(self, p: Tensor, tokens: Tensor, timestep: Tensor, timestep_next: Tensor, u: Tensor) -> Tensor:
        """Every position from p(x_s | x_t)."""
        transition = self.schedule(timestep, timestep_next)
        return draw(posterior(p, tokens, timestep_next < 0, transition), u)

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
        inputs = [tokens, pinned, context, null_context, timestep, timestep_next, reveal, guidance]
        inputs += [selection, purity_r, temperature, truncation, purity_form, uniforms]
        rows = tokens.shape[0]
        size = (rows + self.parts - 1) // self.parts
        if self.parts == 1 or 10 * (size * self.parts - rows) > rows:
            return self.evaluate(inputs, self.parts)
        futures = [torch.jit.fork(self.evaluate, [x[i : i + size] for x in inputs], 1) for i in range(0, rows, size)]
        outputs = [torch.jit.wait(future) for future in futures]
        return torch.cat([grids for grids, _ in outputs]), torch.cat([purity for _, purity in outputs])

    def evaluate(self, inputs: list[Tensor], parts: int) -> tuple[Tensor, Tensor]:
        """``forward`` on its arguments in order; the network's batch in ``parts``."""
        tokens, pinned, context, null_context, timestep, timestep_next, reveal, guidance = inputs[:8]
        selection, purity_r, temperature, truncation, purity_form, uniforms = inputs[8:]
        x = torch.where(pinned >= 0, pinned, tokens).long()
        guided = (guidance != 1).any(1).nonzero().flatten()
        memory = self.memory(context, null_context[guided], parts)
        by_purity, form = selection == self.by_purity, purity_form[:, 0]
        # Eq. 11 belongs to the purity sampler; r = 0 leaves p as it is.
        r = torch.where(by_purity, purity_r, torch.zeros_like(purity_r))[:, 0]
        purity = torch.zeros_like(uniforms[:, 0, :, 0])
        for e in range(timestep.shape[1]):
            t, t_next, count = timestep[:, e].long(), timestep_next[:, e].long(), reveal[:, e]
            u_code, u_place = uniforms[:, e, :, 0], uniforms[:, e, :, 1]
            log_p = self.predict(x, t, memory, guided, guidance[:, e], truncation[:, 0])
            purity = purity_of(log_p)
            code = draw(power(log_p, self.sharpness(purity, r, form) / temperature), u_code)
            weight = torch.where(by_purity, purity, torch.ones_like(purity))
            here = choose_positions(weight, x == self.codes, count, u_place)
            revealed = torch.where(here, code, x)
            if bool((count < 0).any()):
                p = power(log_p, (1 / temperature).expand_as(purity))
                revealed = torch.where(count[:, None] < 0, self.ancestral(p, x, t, t_next, u_code), revealed)
            x = torch.where(pinned >= 0, pinned.long(), revealed)
        return x.int(), purity.half()
