"""What requests and answers say of pictures to begin with."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from service.gateway.problems import Absent
from service.messages import Edit

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
IMAGE = "A picture to begin with: a PNG, JPEG or WebP file in base64, or as a data: URL. Its middle is taken."
MASK = (
    "What of `image` is to change: a picture of the same size, white there, or transparent if any of it is. A token "
    "changes when half of its cell is marked."
)
STRENGTH = (
    "Which share of what may change is drawn anew: 0 gives `image` as the model sees it. Left out: 1 with a mask, 0.7 "
    "without one."
)
COMPOSITE = "With a mask: whether the pixels that it keeps are those of `image`, exactly; true unless it is false."
PINNED = "For each token the code that it keeps, or -1: row by row. The others are drawn to fit."


class EditAnswer(BaseModel):
    """The files themselves are not kept: whoever wants the same picture again sends them again."""

    model_config = ConfigDict(frozen=True)

    image_sha256: Sha256 | Absent = None
    mask_sha256: Sha256 | Absent = None
    strength: float
    composite: bool

    @classmethod
    def of(cls, edit: Edit | None) -> Self | None:
        return cls.model_validate(edit, from_attributes=True) if edit else None
