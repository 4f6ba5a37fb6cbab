"""What a job's pictures are conditioned on, for each kind of model: which texts to encode, and what the step gets."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from service.condition import Condition
from service.engine.prompts import PromptTokenizer, Tokenised
from service.errors import InvalidRequest
from service.messages import Job
from service.serving import ModelInfo
from service.triton.contract import Array, Float16


class Conditions:
    """Of one model: the prompt and what guidance leads away from, the label and the null, or nothing."""

    def __init__(self, info: ModelInfo, tokenizer: Tokenizer | None) -> None:
        self.info = info
        self.prompts = PromptTokenizer(tokenizer, info) if tokenizer else None

    def texts(self, job: Job) -> tuple[Tokenised, ...]:
        """What the text encoder is to be asked for. Raises InvalidRequest for what the model cannot draw."""
        if self.prompts:
            prompt = self.prompts.tokenise(job.prompt, job.truncate_prompt)
            return prompt, self.prompts.tokenise_negative(job.negative_prompt, job.truncate_prompt)
        if self.info.condition is Condition.LABEL and (job.label is None or not 0 <= job.label < self.info.classes):
            raise InvalidRequest("label", f"must be from 0 to {self.info.classes - 1}, not {job.label}")
        return ()

    def of(self, job: Job, states: Sequence[Float16]) -> tuple[Array, ...]:
        """A row's conditions; ``states``: the encoder's answer for each of ``texts``."""
        if self.info.condition is Condition.LABEL:
            return np.array(job.label, np.int32), np.array(self.info.classes, np.int32)
        return tuple(states)
