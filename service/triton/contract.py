"""The tensors of the three models: one table that client, fake, configs, export and tests all read.

Letters in ``dims``: L tokens, S text positions, D text width, K codes (mask id = K), k evaluations per call, H and W
the image's height and width. Every tensor has the batch dimension in front of its dims.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Int32: TypeAlias = NDArray[np.int32]
Float16: TypeAlias = NDArray[np.float16]
Float32: TypeAlias = NDArray[np.float32]
UInt8: TypeAlias = NDArray[np.uint8]


class DType(StrEnum):
    """Triton's name on the wire; ``TYPE_`` in front of it in a config.pbtxt."""

    INT32 = "INT32"
    FP16 = "FP16"
    FP32 = "FP32"
    UINT8 = "UINT8"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype({"INT32": "int32", "FP16": "float16", "FP32": "float32", "UINT8": "uint8"}[self.value])


@dataclass(frozen=True)
class Shapes:
    """Every size that the contract depends on."""

    tokens: int
    text_positions: int
    text_width: int
    codes: int
    image_height: int
    image_width: int
    max_batch_size: int = 16

    def resolve(self, dims: tuple[str | int, ...]) -> tuple[int, ...]:
        """``dims`` as numbers; -1 where a call decides (k)."""
        sizes = {
            "L": self.tokens,
            "S": self.text_positions,
            "D": self.text_width,
            "K": self.codes,
            "k": -1,
            "H": self.image_height,
            "W": self.image_width,
        }
        return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)


@dataclass(frozen=True)
class Tensor:
    """``sample`` fills the tensor in health checks and warm-ups; a letter stands for its size."""

    name: str
    dtype: DType
    dims: tuple[str | int, ...]
    sample: float | str = 0

    def sample_value(self, shapes: Shapes) -> float:
        return shapes.resolve((self.sample,))[0] if isinstance(self.sample, str) else self.sample

    def sample_array(self, shapes: Shapes, rows: int) -> Array:
        """[rows, *dims], k = 1."""
        dims = [max(size, 1) for size in shapes.resolve(self.dims)]
        return np.full((rows, *dims), self.sample_value(shapes), self.dtype.numpy)

    def fits(self, array: Array, shapes: Shapes, rows: int) -> bool:
        """Whether dtype and shape are as the table says."""
        dims = (rows, *shapes.resolve(self.dims))
        if array.ndim != len(dims) or array.dtype != self.dtype.numpy:
            return False
        return all(dim in (-1, size) for dim, size in zip(dims, array.shape, strict=True))


@dataclass(frozen=True)
class Model:
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def sample(self, shapes: Shapes, rows: int = 1) -> dict[str, Array]:
        """Inputs that any model of these shapes can compute."""
        return {tensor.name: tensor.sample_array(shapes, rows) for tensor in self.inputs}


TEXT_ENCODER = Model(
    "text_encoder",
    (Tensor("input_ids", DType.INT32, ("S",)), Tensor("attention_mask", DType.INT32, ("S",), 1)),
    (Tensor("states", DType.FP16, ("S", "D")),),
)
DIFFUSION_STEP = Model(
    "diffusion_step",
    (
        Tensor("tokens", DType.INT32, ("L",), "K"),
        Tensor("pinned", DType.INT32, ("L",), -1),
        Tensor("context", DType.FP16, ("S", "D")),
        Tensor("null_context", DType.FP16, ("S", "D")),
        Tensor("timestep", DType.INT32, ("k",)),
        Tensor("timestep_next", DType.INT32, ("k",), -1),
        Tensor("reveal", DType.INT32, ("k",), 1),
        Tensor("guidance", DType.FP32, ("k",), 2.0),
        Tensor("selection", DType.INT32, (1,), 1),
        Tensor("purity_r", DType.FP32, (1,), 1.0),
        Tensor("temperature", DType.FP32, (1,), 1.0),
        Tensor("truncation", DType.FP32, (1,), 1.0),
        Tensor("purity_form", DType.INT32, (1,)),
        Tensor("uniforms", DType.FP32, ("k", "L", 2), 0.5),
    ),
    (Tensor("tokens_out", DType.INT32, ("L",)), Tensor("purity", DType.FP16, ("L",))),
)
IMAGE_DECODER = Model(
    "image_decoder",
    (Tensor("tokens", DType.INT32, ("L",)),),
    (Tensor("image", DType.UINT8, ("H", "W", 3)),),
)
MODELS = (TEXT_ENCODER, DIFFUSION_STEP, IMAGE_DECODER)


@dataclass(frozen=True)
class StepBatch:
    """The inputs of one ``diffusion_step`` call, B rows; fields are the contract's tensors."""

    tokens: Int32
    pinned: Int32
    context: Float16
    null_context: Float16
    timestep: Int32
    timestep_next: Int32
    reveal: Int32
    guidance: Float32
    selection: Int32
    purity_r: Float32
    temperature: Float32
    truncation: Float32
    purity_form: Int32
    uniforms: Float32

    def arrays(self) -> dict[str, Array]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class StepOutput:
    """``tokens`` [B,L], 0…K with K = mask; ``purity`` [B,L] of the last evaluation."""

    tokens: Int32
    purity: Float16
