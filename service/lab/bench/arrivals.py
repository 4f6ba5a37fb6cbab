"""What an open-loop load test sends, and when: requests at random that wait for no answer. Seeded."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Self

from service.errors import SetupError
from service.lab.bench.cases import PROMPTS, Fields, mixed, plain

N_OF_MIXED = (1, 1, 1, 2)


@dataclass(frozen=True)
class Rate:
    """Requests per second; or a share of what the service has shown that it can do, written with an x: 0.8x."""

    value: float
    is_share: bool

    @classmethod
    def read(cls, text: str) -> Self:
        number, is_share = text.strip().removesuffix("x"), text.strip().endswith("x")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise SetupError(
                f"--poisson: {text!r} is neither requests per second, such as 4, nor a share, such as 0.8x"
            )
        return cls(value, is_share)

    def per_second(self, capacity: float) -> float:
        return self.value * capacity if self.is_share else self.value

    def share(self, capacity: float) -> float:
        return self.value if self.is_share else self.value / capacity


def read_rates(text: str) -> list[Rate]:
    """Of a list with commas. Raises SetupError."""
    return [Rate.read(part) for part in text.split(",")]


def poisson(rate: float, count: int, seed: int = 0) -> list[float]:
    """When each of ``count`` requests is due, in seconds. The same pattern for every rate, only faster or slower."""
    choose = random.Random(seed)
    return [unit / rate for unit in accumulate(choose.expovariate(1.0) for _ in range(count))]


def unlike(cases: Sequence[Fields]) -> list[Fields]:
    """Each with a prompt of its own, as long as there are pairs of names: nobody gains from what was asked before."""
    size = len(PROMPTS)
    names = [(PROMPTS[i % size], PROMPTS[(i + 1 + i // size % (size - 1)) % size]) for i in range(len(cases))]
    return [fields | {"prompt": f"{one} and {other}"} for fields, (one, other) in zip(cases, names, strict=True)]


def all_alike(count: int) -> list[Fields]:
    """The model's defaults, guided throughout; only prompt and seed differ."""
    return unlike(plain(count))


def all_different(count: int) -> list[Fields]:
    """Every other request with the model's defaults, the rest with parameters and a number of pictures at random."""
    choose = random.Random(1)
    return [
        fields | ({"n": choose.choice(N_OF_MIXED)} if i % 2 else {}) for i, fields in enumerate(unlike(mixed(count)))
    ]


class Mix(StrEnum):
    PLAIN = "plain"
    MIXED = "mixed"

    def requests(self, count: int) -> list[Fields]:
        return all_alike(count) if self is Mix.PLAIN else all_different(count)
