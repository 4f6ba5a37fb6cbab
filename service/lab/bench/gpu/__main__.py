"""``python -m service.lab.bench.gpu``: where there is torch, and nothing else of what the command line needs."""

import argparse
from pathlib import Path

import torch

from service.lab.bench.gpu.measure import Clock
from service.lab.bench.gpu.networks import TINY, networks
from service.lab.bench.gpu.programme import Programme, measure_gpu


def main() -> None:
    parser = argparse.ArgumentParser(prog="vqd bench gpu", description="Measure the step on this machine's GPU.")
    parser.add_argument("--out", type=Path, default=Path("docs/gpu.json"))
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--networks", default="", help="names, with commas; all if left out")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = [network for network in [*networks(), TINY] if network.name in options.networks.split(",")]
    print(measure_gpu(options.out, Programme(wanted or networks(), device, clock=Clock(options.minutes))))


if __name__ == "__main__":
    main()
