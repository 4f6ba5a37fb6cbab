"""The tensors of the served models: one table that client, fake, configs, export and tests all read.

Letters in ``dims``: L tokens, S text positions, D text width, K codes (mask id = K), k evaluations per call, C
conditions of a row, H and W the image's height and width. Every tensor has the batch dimension in front of its dims.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.condition import Condition

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
    """Every size that the contract depends on. ``text_*``: 0 where there is no text; ``classes``: without the null.

    ``evaluations``: how many a call of the step has, -1 for any.
    """

    tokens: int
    text_positions: int
    text_width: int
    codes: int
    image_height: int
    image_width: int
    max_batch_size: int = 16
    condition: Condition = Condition.TEXT
    classes: int = 0
    evaluations: int = -1

    def resolve(self, dims: tuple[str | int, ...]) -> tuple[int, ...]:
        """``dims`` as numbers; -1 where a call decides (k, C)."""
        sizes = {
            "L": self.tokens,
            "S": self.text_positions,
            "D": self.text_width,
            "K": self.codes,
            "k": self.evaluations,
            "C": -1,
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

    def sample_dims(self, shapes: Shapes) -> list[int]:
        """``dims`` with one evaluation and two conditions, as a guided call has."""
        usual = {"k": 1, "C": 2}
        return [usual.get(str(dim), size) for dim, size in zip(self.dims, shapes.resolve(self.dims), strict=True)]

    def sample_array(self, shapes: Shapes, rows: int) -> Array:
        """[rows, *sample_dims]."""
        return np.full((rows, *self.sample_dims(shapes)), self.sample_value(shapes), self.dtype.numpy)

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
CONDITIONS: dict[Condition, tuple[Tensor, ...]] = {
    Condition.TEXT: (Tensor("contexts", DType.FP16, ("C", "S", "D")),),
    Condition.LABEL: (Tensor("labels", DType.INT32, ("C",)),),
    Condition.NONE: (),
}
"""What the step is told of a row's conditions, by the kind of model."""


def diffusion_step(condition: Condition) -> Model:
    return Model(
        "diffusion_step",
        (
            Tensor("tokens", DType.INT32, ("L",), "K"),
            Tensor("pinned", DType.INT32, ("L",), -1),
            *CONDITIONS[condition],
            Tensor("timestep", DType.INT32, ("k",)),
            Tensor("timestep_next", DType.INT32, ("k",), -1),
            Tensor("weights", DType.FP32, ("k", "C"), 0.5),
            Tensor("reveal", DType.INT32, ("k",), 1),
            Tensor("remask", DType.INT32, ("k",)),
            Tensor("revise", DType.INT32, ("k",)),
            Tensor("reveal_score", DType.FP32, ("k", 4), 1.0),
            Tensor("retire_score", DType.FP32, ("k", 4), 1.0),
            Tensor("order", DType.FP32, ("L",)),
            Tensor("sharpen", DType.FP32, ("k",), 1.0),
            Tensor("temperature", DType.FP32, ("k",), 1.0),
            Tensor("truncation", DType.FP32, ("k",), 1.0),
            Tensor("purity_form", DType.INT32, (1,)),
            Tensor("uniforms", DType.FP32, ("k", "L", 2), 0.5),
        ),
        (Tensor("tokens_out", DType.INT32, ("L",)), Tensor("purity", DType.FP16, ("L",))),
    )


STEP = "diffusion_step"
EACH_EVALUATION = tuple(tensor.name for tensor in diffusion_step(Condition.NONE).inputs if "k" in tensor.dims)
"""The step's inputs that have a value for each evaluation, whatever the model is conditioned on."""
IMAGE_DECODER = Model(
    "image_decoder",
    (Tensor("tokens", DType.INT32, ("L",)),),
    (Tensor("image", DType.UINT8, ("H", "W", 3)),),
)
IMAGE_ENCODER = Model(
    "image_encoder",
    (Tensor("image", DType.UINT8, ("H", "W", 3)),),
    (Tensor("tokens", DType.INT32, ("L",)),),
)


def models_of(condition: Condition) -> tuple[Model, ...]:
    """What Triton serves for a kind of model."""
    text = (TEXT_ENCODER,) if condition is Condition.TEXT else ()
    return (*text, diffusion_step(condition), IMAGE_DECODER, IMAGE_ENCODER)


@dataclass(frozen=True)
class StepBatch:
    """The inputs of one ``diffusion_step`` call, B rows; fields are the contract's tensors, None for another kind's."""

    tokens: Int32
    pinned: Int32
    timestep: Int32
    timestep_next: Int32
    weights: Float32
    reveal: Int32
    remask: Int32
    revise: Int32
    reveal_score: Float32
    retire_score: Float32
    order: Float32
    sharpen: Float32
    temperature: Float32
    truncation: Float32
    purity_form: Int32
    uniforms: Float32
    contexts: Float16 | None = None
    labels: Int32 | None = None

    def parts(self, evaluations: int) -> Iterator[Self]:
        """The same in pieces of so many evaluations, each with the tokens that this one begins with."""
        for start in range(0, self.timestep.shape[1], evaluations):
            yield replace(
                self, **{name: getattr(self, name)[:, start : start + evaluations] for name in EACH_EVALUATION}
            )

    def arrays(self) -> dict[str, Array]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: array for name, array in given.items() if array is not None}


@dataclass(frozen=True)
class StepOutput:
    """``tokens`` [B,L], 0…K with K = mask; ``purity`` [B,L] of the last evaluation."""

    tokens: Int32
    purity: Float16
