"""What the exported network computes in; what comes out of it is float32 either way."""

from enum import StrEnum

import torch

BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""What torch calls them, on x86 and on Arm."""


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    def decided(self) -> "Precision":
        """``auto`` made into one of the others: bf16 where this processor has units for it."""
        if self is not Precision.AUTO:
            return self
        units = torch.cpu.get_capabilities()
        return Precision.BF16 if any(units.get(name) for name in BF16_UNITS) else Precision.FP32

    @property
    def torch(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]
