"""What the exported network computes in; what comes out of it is float32 either way."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BF16_UNITS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What the kernel calls them, on x86 and on Arm."""
BF16_TOKENS = 64
"""Products of fewer rows are made by kernels that depend on how many there are."""
CPU_INFO = Path("/proc/cpuinfo")


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    def decided(self, cpu_info: Path = CPU_INFO) -> "Precision":
        """``auto`` made into one of the others: bf16 where this processor has units for it."""
        if self is not Precision.AUTO:
            return self
        return Precision.BF16 if bf16_units(cpu_info) else Precision.FP32

    def same_in_any_batch(self, tokens: int, cpu_info: Path = CPU_INFO) -> bool:
        """Whether a seed's picture is promised to be the same in any batch: where none of 500 grids had changed.

        So it was in float32, and in bf16 with 64 tokens on a processor with units for it; with 16 tokens, some did.
        """
        if self is Precision.BF16:
            return tokens >= BF16_TOKENS and bool(bf16_units(cpu_info))
        return self is Precision.FP32

    @property
    def torch(self) -> "torch.dtype":
        import torch  # noqa: PLC0415  `vqd up` decides without it

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]


def bf16_units(cpu_info: Path = CPU_INFO) -> frozenset[str]:
    """Those that this processor has. None where the kernel says nothing of it: on anything but Linux."""
    try:
        text = cpu_info.read_text(errors="replace")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return (
        frozenset(unit for name, _, units in lines if name.strip() in {"flags", "Features"} for unit in units.split())
        & BF16_UNITS
    )
