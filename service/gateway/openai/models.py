"""The served models, in a list that OpenAI's clients read, too."""

from typing import Literal

from pydantic import Field

from service.gateway.schemas import Answer, ModelCard


class ServedModel(ModelCard):
    """With what OpenAI says of each of its own."""

    created: int = Field(0, description="For OpenAI's clients. 0: a model folder does not say when it was made.")
    owned_by: str = Field("vqd", description="For OpenAI's clients.")


class ModelList(Answer):
    object: Literal["list"]
    data: list[ServedModel]
