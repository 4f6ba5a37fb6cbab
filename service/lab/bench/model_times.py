"""How long the exported modules take for each batch size, in this process: what the simulation is made of."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from service.lab.bench.arrivals import all_alike
from service.lab.bench.bare import Bare
from service.lab.bench.report import machine
from service.lab.bench.simulation import ModelTimes

EVALUATIONS = 4
"""Of a measured step call; what is done once per call is shared by as many as in the service, more or less."""
UNGUIDED = {"guidance_scale": 1.0}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def step_seconds(bare: Bare, rows: int, unguided: bool) -> float:
    batch = bare.begin([fields | (UNGUIDED if unguided else {}) for fields in all_alike(rows)])
    return seconds(lambda: bare.advance(batch, EVALUATIONS)) / EVALUATIONS


def encode_seconds(bare: Bare, rows: int) -> float:
    texts = [bare.prompts.tokenise(fields["prompt"]) for fields in all_alike(rows)]
    return seconds(lambda: bare.encode(texts))


def decode_seconds(bare: Bare, rows: int) -> float:
    grids = np.zeros((rows, bare.info.tokens), np.int32)
    return seconds(lambda: bare.call("image_decoder", tokens=grids))


def measure_times(repository: Path, max_batch: int, rounds: int) -> ModelTimes:
    """Medians. Sizes take turns in each round, so that a slow minute slows all; the first two rounds warm up."""
    bare, sizes = Bare(repository), range(1, max_batch + 1)
    measures: dict[str, Callable[[int], float]] = {
        "encode": lambda rows: encode_seconds(bare, rows),
        "decode": lambda rows: decode_seconds(bare, rows),
        "guided": lambda rows: step_seconds(bare, rows, unguided=False),
        "unguided": lambda rows: step_seconds(bare, rows, unguided=True),
    }
    taken: dict[str, dict[int, list[float]]] = {name: {size: [] for size in sizes} for name in measures}
    for _ in tqdm(range(2 + rounds), desc="rounds", unit="round", leave=False):
        for name, measure in measures.items():
            for size in sizes:
                taken[name][size].append(measure(size))
    medians = {name: {size: median(values[2:]) for size, values in by.items()} for name, by in taken.items()}
    return ModelTimes(model=bare.info, facts={"machine": machine(), "rounds": rounds}, **medians)
