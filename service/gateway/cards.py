"""What `GET /v1/models` says of a served model."""

from typing import Any, Literal, Self

from pydantic import Field

from service.condition import Condition
from service.gateway.samplers import SamplerCard, sampler_cards
from service.gateway.schemas import Answer, fields_of
from service.serving import ModelInfo, Range


class ModelShapes(Answer):
    tokens: int
    codes: int
    image_width: int
    image_height: int
    text_positions: int
    timesteps: int


class ModelCard(Answer):
    """A served model: `id` is what `model` takes in a request."""

    id: str
    object: Literal["model"]
    created: int = Field(0, description="For OpenAI's clients; 0: a model folder does not say when it was made.")
    owned_by: str = Field("vqd", description="For OpenAI's clients.")
    condition: Condition = Field(description="What it draws from: `text` (prompt), `label`, or nothing.")
    labels: tuple[str, ...] = Field(description="The names of its classes, if it has any with names.")
    classes: int
    guidance: bool = Field(description="Whether it can be guided: it knows what no condition at all looks like.")
    fields: tuple[str, ...] = Field(description="The fields of a request that mean something to it.")
    sha256: str
    dtype: str = Field(description="What its network computes in: `fp32`, `bf16` or `fp16`.")
    backend: str = Field(description="What it was exported for: `python`, `pytorch`, `aoti`, `onnx` or `tensorrt`.")
    same_in_any_batch: bool = Field(
        description="Whether a seed's picture is promised to be the same alone and in any batch, so exported."
    )
    description: str
    licence: str
    attributions: tuple[str, ...]
    prompt_template: str
    shapes: ModelShapes
    samplers: tuple[str, ...]
    sampler_cards: tuple[SamplerCard, ...]
    defaults: dict[str, Any]
    ranges: dict[str, Range]

    @classmethod
    def of(cls, model: ModelInfo) -> Self:
        facts = model.model_dump()
        # The seed of the defaults is a placeholder: a request without one gets a random seed.
        defaults = model.defaults.model_dump(mode="json", exclude={"seed"})
        return cls(
            **{**facts, "defaults": defaults},
            object="model",
            id=model.name,
            fields=fields_of(model),
            shapes=ModelShapes(**facts),
            sampler_cards=sampler_cards(model.samplers),
        )


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelCard]
