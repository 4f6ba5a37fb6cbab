"""What a model's pictures are conditioned on. Apart from the records, so that the networks need nothing but torch."""

from enum import StrEnum


class Condition(StrEnum):
    TEXT = "text"
    LABEL = "label"
    NONE = "none"
