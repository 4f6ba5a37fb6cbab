"""Does a picture depend on its neighbours? Token grids made alone against the same ones made in batches of others.

Floating-point sums change their order with the batch size, so a near-tie in a draw could fall the other way.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle

from tqdm import tqdm

from service.engine.grid import tokens_sha256
from service.engine.row import Row
from service.lab.bench.bare import Bare
from service.lab.bench.cases import Fields, shuffled
from service.lab.bench.load import press
from service.lab.bench.report import Line
from service.lab.bench.statistics import upper_bound

SIZES = (1, 2, 3, 4, 5, 8, 16)
CLIENTS = (1, 3, 8)
LONGEST_CALL = 4
"""Evaluations per call are drawn from 1 up to this: in the service they depend on the load, too."""


@dataclass(frozen=True)
class Flips:
    where: str
    grids: int
    flipped: int

    @classmethod
    def between(cls, where: str, hashes: Sequence[str], others: Sequence[str]) -> "Flips":
        pairs = list(zip(hashes, others, strict=True))
        return cls(where, len(pairs), sum(one != other for one, other in pairs))

    def line(self) -> Line:
        plausible = f"95 % sure below {upper_bound(self.flipped, self.grids):.2%}"
        return Line(f"Grids that differ, {self.where} ({plausible})", f"of {self.grids}", [self.flipped], bound=0)


def hashes_in_batches(bare: Bare, cases: Sequence[Fields], size: int, seed: int, bar: "tqdm[None]") -> list[str]:
    """Every case's hash, made in calls of always ``size`` rows that stand at different evaluations.

    As in the service, a finished row's place goes to the next case; when all have started, the first come again.
    """
    choose = random.Random(seed)
    order = shuffled(range(len(cases)), seed)
    endless = chain(order, cycle(order))
    ready: deque[tuple[int, Row]] = deque()
    active: list[tuple[int, Row]] = []
    hashes: dict[int, str] = {}
    while len(hashes) < len(cases):
        while len(active) < size:
            if not ready:
                chosen = [next(endless) for _ in range(size)]
                ready.extend(zip(chosen, bare.begin([cases[i] for i in chosen]), strict=True))
            active.append(ready.popleft())
        left = min(row.remaining for _, row in active)
        bare.advance([row for _, row in active], choose.randint(1, min(LONGEST_CALL, left)))
        ended = {index: tokens_sha256(row.tokens) for index, row in active if not row.remaining}
        active = [(index, row) for index, row in active if row.remaining]
        bar.update(len(ended.keys() - hashes.keys()))
        hashes = ended | hashes
    return [hashes[i] for i in range(len(cases))]


def flips_of_modules(
    bare: Bare, cases: Sequence[Fields], sizes: Sequence[int] = SIZES
) -> tuple[list[str], list[Flips]]:
    """The hashes of every case alone, and how many differ in batches of each size."""
    with tqdm(total=len(cases) * (1 + len(sizes)), desc="flips", unit="grid", leave=False) as bar:
        alone = hashes_in_batches(bare, cases, 1, 0, bar)
        found = [
            Flips.between(f"modules, batch of {size}", alone, hashes_in_batches(bare, cases, size, size, bar))
            for size in sizes
        ]
    return alone, found


def flips_of_service(
    url: str, cases: Sequence[Fields], alone: Sequence[str], clients: Sequence[int] = CLIENTS
) -> list[Flips]:
    """The same against a running service, by the number of requests at once. Raises Unavailable when one fails."""
    found = []
    with tqdm(total=len(cases) * len(clients), desc="flips through the service", unit="grid", leave=False) as bar:
        for count in clients:
            order = shuffled(range(len(cases)), count)
            replies = asyncio.run(press(url, [cases[i] for i in order], count, None, lambda _: bar.update()))
            hashes = [reply.require()["images"][0]["tokens_sha256"] for reply in replies]
            found.append(Flips.between(f"service, {count} at once", [alone[i] for i in order], hashes))
    return found
