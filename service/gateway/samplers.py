"""What clients are told of the samplers of a model, to offer their fields and no others."""

from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from service.diffusion.samplers import SAMPLERS, Sampler


def taken(sampler: Sampler) -> set[str]:
    """The fields that it takes and some other does not."""
    return {*sampler.fields, *sampler.own}


SOMETIMES = {field for sampler in SAMPLERS.values() for field in taken(sampler)}


class SamplerCard(BaseModel):
    """A sampler: `name` is what `sampler` takes in a request."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    unused: tuple[str, ...] = Field(description="The fields of a request that mean nothing to it.")

    @classmethod
    def of(cls, sampler: Sampler) -> Self:
        return cls(name=sampler.name, description=sampler.text, unused=tuple(sorted(SOMETIMES - taken(sampler))))


def sampler_cards(names: Iterable[str]) -> tuple[SamplerCard, ...]:
    return tuple(SamplerCard.of(SAMPLERS[name]) for name in names if name in SAMPLERS)
