"""What a text of a request may be: it shows something, and hides nothing."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

MAX_PROMPT = 2000


def clean_text(text: str) -> str:
    """Refuse text that shows nothing or hides something; joiners and marks of emoji and scripts are fine."""
    if INVISIBLE.fullmatch(text):
        raise PydanticCustomError("empty_text", "the text is empty")
    return without_controls(text)


def text_or_none(text: str) -> str | None:
    """Text that shows nothing is as good as none: forms always send the field."""
    return None if INVISIBLE.fullmatch(without_controls(text)) else text


def without_controls(text: str) -> str:
    """Line breaks and tabs are white space; every other control character is refused."""
    hidden = next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n\r"), None)
    if hidden is not None:
        code = f"U+{ord(hidden):04X}"
        raise PydanticCustomError("hidden_text", "the text has the control character {code}", {"code": code})
    return text


BLANK = (
    # White space, Unicode's Default_Ignorable_Code_Point (joiners, fillers, variation selectors, tags), empty braille
    r"\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
INVISIBLE = re.compile(rf"[{BLANK}\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*")
SHOWN = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]"
SHOWS_SOMETHING = {"pattern": f"^{SHOWN}*{SHOWN[:-1]}{BLANK}]{SHOWN}*$"}
"""For the document, as near as the patterns of JSON Schema come: they have no letters beyond U+FFFF."""
Text = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT, json_schema_extra=SHOWS_SOMETHING), AfterValidator(clean_text)
]
OptionalText = (
    Annotated[
        str, Field(max_length=MAX_PROMPT, json_schema_extra={"pattern": f"^{SHOWN}*$"}), AfterValidator(text_or_none)
    ]
    | None
)
