"""Clocks and counters of the GPU programme: they work on a CPU, too, for the test."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

LEAST, MOST = 3, 12
TF = 1e12


def synchronised(device: str) -> float:
    """The time, when everything asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call: Callable[[], object], device: str, budget_s: float = 0.6) -> float:
    """Median of several runs after two that do not count; at most a budget's worth of them, at least three."""
    call()
    call()
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < budget_s and len(taken) < MOST):
        began = synchronised(device)
        call()
        taken.append(synchronised(device) - began)
    return statistics.median(taken)


def peak_flops(dtype: torch.dtype, device: str, size: int) -> float:
    """Operations a second of a large product of random matrices."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device)


def peak_bytes(device: str, size: int) -> float:
    """Bytes read and written a second by a large copy."""
    a = torch.empty(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size / seconds(lambda: b.copy_(a), device)


class MemoryPeak:
    """Most bytes that tensors had on the GPU inside the ``with``; 0 on a CPU."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0

    def __enter__(self) -> "MemoryPeak":
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device == "cuda":
            self.bytes = torch.cuda.max_memory_allocated()


@dataclass
class Clock:
    """How much of the time that the programme may take is left."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.began)
