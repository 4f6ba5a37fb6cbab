"""The module that Triton serves as ``diffusion_step``: k evaluations of network and sampler, as one function."""

from typing import Protocol

import torch
from torch import Tensor, nn

from service.diffusion.evaluation import Needs, Sampling, Told, needs_of
from service.diffusion.guidance import combine, normalise, truncate


class Denoiser(Protocol):
    """What the step asks of a network, which is a scriptable ``nn.Module``; any other network may stand behind it."""

    def prepare(self) -> None:
        """Make ready for inference, and for that alone. Called once, before scripting."""

    def memory(self, condition: Tensor) -> Tensor:
        """What does not depend on x_t or t, from text states [B, S, D] or labels INT64 [B].

        Of six dimensions, B being the third.
        """

    def __call__(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        """x_t INT64 [B, L] with mask K, timestep INT64 [B], ``memory``'s answer → logits of x_0 FP32 [B, L, K]."""


class DiffusionStep(nn.Module):
    """x_t to x_s for a batch whose rows differ in everything but shapes. Pure: all randomness is ``uniforms``.

    What a row is conditioned on comes as a list of conditions, [B, C, …], each with a weight in each evaluation. Only
    pairs of a row and a condition with a weight cost a pass through the network.

    ``parts``: the batch is cut into so many, which run side by side in TorchScript's inter-op threads. On a CPU, one
    part per core with one intra-op thread each beats all cores on every operator: nothing waits in between. Where the
    rows do not come out even, only the network's batch is cut.
    """

    def __init__(self, transformer: Denoiser, codes: int, timesteps: int) -> None:
        super().__init__()
        self.parts = 1
        self.transformer = transformer
        self.sampling = Sampling(codes, timesteps)

    def run(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The contract's inputs in order, of which the third is what the rows are conditioned on.

        → (tokens_out INT32 [B, L], purity FP16 [B, L]).
        """
        rows = inputs[0].shape[0]
        size = (rows + self.parts - 1) // self.parts
        if self.parts == 1 or 10 * (size * self.parts - rows) > rows:
            return self.evaluate(inputs, self.parts)
        futures = [torch.jit.fork(self.evaluate, [x[i : i + size] for x in inputs], 1) for i in range(0, rows, size)]
        outputs = [torch.jit.wait(future) for future in futures]
        return torch.cat([grids for grids, _ in outputs]), torch.cat([purity for _, purity in outputs])

    def evaluate(self, inputs: list[Tensor], parts: int) -> tuple[Tensor, Tensor]:
        """``run`` with the network's batch in ``parts``."""
        tokens, pinned, conditions, weights = inputs[0], inputs[1].long(), inputs[2], inputs[5]
        x = torch.where(pinned < 0, tokens.long(), pinned)
        # Pairs of condition and row that have a weight in any evaluation, condition by condition.
        condition, row = (weights != 0).any(1).t().nonzero().unbind(1)
        memory = self.memory(conditions[row, condition], condition, parts)
        purity = torch.zeros_like(inputs[11])
        for e in range(weights.shape[1]):
            told = told_at(inputs, e)
            pairs = self.wanted(row, condition, told.weights, memory)
            x, purity = self.advance(x, pinned, pairs[0], pairs[1], pairs[2], told, needs_of(told))
        return x.int(), purity.half()

    def memory(self, conditions: Tensor, condition: Tensor, parts: int) -> list[Tensor]:
        """The network's memory of P conditions [P, …], one tensor for each of ``parts``."""
        if parts > 1:
            size = (conditions.shape[0] + parts - 1) // parts
            futures = [torch.jit.fork(self.transformer.memory, part) for part in conditions.split(size)]
            return [torch.jit.wait(future) for future in futures]
        first = int((condition == 0).sum())
        others = conditions.shape[0] - first
        if others > 1 and bool((conditions[first + 1 :] == conditions[first]).all()):  # as a rule, the model's own null
            known = self.transformer.memory(conditions[: first + 1])
            last = known[:, :, -1:].expand(-1, -1, others - 1, -1, -1, -1)
            return [torch.cat([known, last], 2)]
        return [self.transformer.memory(conditions)]

    def wanted(
        self, row: Tensor, condition: Tensor, weights: Tensor, memory: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Of the pairs and their memory those that have a weight in this evaluation."""
        here = weights[row, condition] != 0
        if bool(here.all()):
            return row, condition, memory
        row, condition = row[here], condition[here]
        kept = torch.cat(memory, 2).index_select(2, here.nonzero()[:, 0])
        return row, condition, list(kept.split((row.shape[0] + len(memory) - 1) // len(memory), 2))

    def advance(
        self,
        x: Tensor,
        pinned: Tensor,
        row: Tensor,
        condition: Tensor,
        memory: list[Tensor],
        told: Told,
        needs: Needs,
    ) -> tuple[Tensor, Tensor]:
        """One evaluation → (x_s INT64, purity FP32), both [B, L]. Nothing in it depends on what the data hold."""
        log_p = self.predict(x, row, condition, memory, told, needs)
        sampled: tuple[Tensor, Tensor] = self.sampling(log_p, x, pinned, told, needs)
        return sampled

    @torch.jit.export
    def memory_of(self, conditions: Tensor) -> Tensor:
        """The network's memory of P conditions [P, …], whatever they are."""
        return self.transformer.memory(conditions)

    @torch.jit.export
    def replay(
        self,
        x: Tensor,
        inputs: list[Tensor],
        memory: Tensor,
        pairs: list[Tensor],
        e: Tensor,
        needs: list[bool],
        passes: int,
    ) -> tuple[Tensor, Tensor]:
        """``advance`` as a CUDA graph can record it: which evaluation it is stands in ``e`` INT64 [1].

        ``pairs``: row, condition and place in ``memory``, each INT64 [P]; ``needs`` as in ``Needs``. The network
        takes ``passes`` of them at a time, and as its shapes are the same in every call then, so are its bits.
        """
        whole = [0, 1, 2, 11, 15]  # what has no evaluations
        now = [tensor if i in whole else tensor.index_select(1, e) for i, tensor in enumerate(inputs)]
        row, condition, place = pairs
        kept = list(memory.index_select(2, place).split(passes, 2))
        told = told_at(now, 0)
        return self.advance(x, inputs[1], row, condition, kept, told, Needs(needs[0], needs[1], needs[2], needs[3]))

    def predict(
        self, x: Tensor, row: Tensor, condition: Tensor, memory: list[Tensor], told: Told, needs: Needs
    ) -> Tensor:
        """log p(x_0) FP32 [B, L, K] after guidance and truncation, from the pairs that have a weight here."""
        passes = self.denoise_parts(x[row], told.timestep[row], memory)
        log_p = combine(passes, row, condition, told.weights, needs.guidance)
        if needs.truncation:
            rate = told.truncation
            log_p = torch.where((rate < 1)[:, None, None], truncate(log_p, rate), log_p)
        return log_p

    def denoise_parts(self, tokens: Tensor, timestep: Tensor, memory: list[Tensor]) -> Tensor:
        """log p(x_0) FP32 [P, L, K] of the network, whose batch is in as many parts as ``memory``."""
        if len(memory) == 1:
            return self.denoise(tokens, timestep, memory[0])
        sizes = [part.shape[2] for part in memory]
        parts = zip(tokens.split(sizes), timestep.split(sizes), memory)  # noqa: B905  TorchScript knows no strict
        if self.parts == 1:
            return torch.cat([self.denoise(x, t, part) for x, t, part in parts])
        futures = [torch.jit.fork(self.denoise, x, t, part) for x, t, part in parts]
        return torch.cat([torch.jit.wait(future) for future in futures])

    def denoise(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        return normalise(self.transformer(tokens, timestep, memory))


def told_at(inputs: list[Tensor], e: int) -> Told:
    """Evaluation e of the contract's inputs."""
    timestep, timestep_next, weights, reveal, remask, revise, reveal_score, retire_score = inputs[3:11]
    order, sharpen, temperature, truncation, form, uniforms = inputs[11:]
    return Told(
        timestep[:, e].long(),
        timestep_next[:, e].long(),
        weights[:, e],
        reveal[:, e],
        remask[:, e],
        revise[:, e],
        reveal_score[:, e],
        retire_score[:, e],
        order,
        sharpen[:, e],
        temperature[:, e],
        truncation[:, e],
        form[:, 0],
        uniforms[:, e],
    )
