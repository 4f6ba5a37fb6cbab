"""The unmodified ``openai`` package, and what its answers hold."""

import base64
import io
from typing import Any

from gateway_harness import RunningGateway
from openai import OpenAI
from PIL import Image

PROMPT = "a red circle"
NPM_PACKAGE = "openai@7.57.0"
"""The version for Node that is tested; that of PyPI stands in constraints.txt."""


def client_of(gateway: RunningGateway, key: str = "none is needed", retries: int = 0) -> OpenAI:
    """As its users make it."""
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=retries)


def opened(file: bytes | str) -> Image.Image:
    """A picture's file, or its bytes in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(file) if isinstance(file, str) else file))
    picture.load()
    return picture


def extra(answer: Any, name: str) -> Any:
    """A field that OpenAI's own answers do not have."""
    return answer.model_extra[name]
