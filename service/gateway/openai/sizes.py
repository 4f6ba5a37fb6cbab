"""How large a picture is to be: as the model makes it, or that a whole number of times."""

import re
from dataclasses import dataclass

from service.gateway.problems import FieldError, InvalidFields
from service.settings import Scaling

SIZE = re.compile(r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")
AUTO = "auto"
MOST_PIXELS = 2**24
"""Of all pictures of a request together, when they are scaled."""


@dataclass(frozen=True)
class Size:
    """``times``: how often the model's own, of ``own_width`` by ``own_height`` pixels."""

    own_width: int
    own_height: int
    times: int = 1

    @property
    def pixels(self) -> tuple[int, int]:
        return self.own_width * self.times, self.own_height * self.times

    def __str__(self) -> str:
        return "{}x{}".format(*self.pixels)


def size_of(asked: str | None, own: Size, n: int, scaling: Scaling) -> Size:
    """What ``size`` of a request for ``n`` pictures means, of which each is made as ``own``. Raises InvalidFields."""
    if asked in (None, AUTO, str(own)):
        return own
    size = Size(own.own_width, own.own_height, int(str(asked).partition("x")[0]) // own.own_width)
    most = 1 if scaling == "off" else largest(own, n)
    if 1 < size.times <= most and str(size) == asked:
        return size
    raise InvalidFields([FieldError("size", f"{asked} cannot be made of {own}", sizes(own, most, n))])


def largest(own: Size, n: int) -> int:
    """How often the model's own size a picture may be, if there are ``n`` of them."""
    return max(1, int((MOST_PIXELS / (n * own.own_width * own.own_height)) ** 0.5))


def sizes(own: Size, most: int, n: int) -> str:
    """Which there are, in words."""
    if most == 1:
        return f"{AUTO} or {own}"
    last = Size(own.own_width, own.own_height, most)
    return f"{AUTO}, {own}, or a whole multiple of it up to {last}" + (f" for {n} pictures" if n > 1 else "")
