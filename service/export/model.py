"""Triton python backend: runs the module of its version folder. ``export`` copies it there, beside model.pt or .pt2.

It runs inside Triton's own process, so it imports nothing of this package but what is copied beside it. One request is
one batch. On a GPU, if Triton gives the model one, the step runs as CUDA graphs.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# The stub embeds an isolated Python, which ignores PYTHONPATH: without this line it finds no torch.
sys.path[:0] = filter(None, [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])

import numpy as np  # noqa: E402
import torch  # noqa: E402
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # noqa: E402
from graphs import Graphs  # type: ignore[import-not-found]  # noqa: E402
from torch import Tensor  # noqa: E402

Call = Callable[[list[Tensor]], Sequence[Tensor]]
LONG_S = 5.0
"""A batch whose run takes longer than this is not warmed up, for starting would take minutes."""
LARGE_FILE = 2**28
M_MMAP_THRESHOLD = -3
CGROUP = Path("/sys/fs/cgroup")


class TritonPythonModel:
    """The class name that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load, hold the file against its config, and warm up; Triton is ready only when this returns."""
        config = json.loads(args["model_config"])
        settings = {key: entry["string_value"] for key, entry in config["parameters"].items()}
        threads = int(settings["threads"]) or len(os.sched_getaffinity(0))
        folder = Path(args["model_repository"], args["model_version"])
        compiled = folder / "model.pt2"
        path = compiled if compiled.exists() else folder / "model.pt"
        self.name = config["name"]
        if path.stat().st_size > LARGE_FILE:
            give_back_large_blocks()
        self.say("loading")
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        torch.set_num_interop_threads(threads)
        if path == compiled:
            self.call = self.packaged(path, threads, json.loads(settings["each_evaluation"]))
        else:
            self.call = self.scripted(path, threads, device_of(args), config["max_batch_size"])
        self.warm_up(config["input"], json.loads(settings["sample"]), json.loads(settings["warm_sizes"]))

    def scripted(self, path: Path, threads: int, device: str, max_batch: int) -> Call:
        """The TorchScript module; on a GPU its step as CUDA graphs."""
        module = torch.jit.load(str(path), map_location=device).eval()
        arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
        if sorted(arguments) != sorted(self.inputs):
            raise pb_utils.TritonModelException(f"{path} takes {arguments}, its config has {self.inputs}")
        torch.set_num_threads(1)
        if device == "cpu":
            # It spreads over the cores by itself: threads of single operators would wait for one another, busily.
            module.parts = threads
        else:
            torch.cuda.set_device(device)
            compute_exactly()
            if hasattr(module, "replay"):
                graphs: Call = Graphs(module, max_batch, device=device)
                return graphs

        def call(inputs: list[Tensor]) -> list[Tensor]:
            result = module(**{name: x.to(device) for name, x in zip(self.inputs, inputs, strict=True)})
            return [output.cpu() for output in (result if isinstance(result, tuple) else [result])]

        return call

    def packaged(self, path: Path, threads: int, each: list[str]) -> Call:
        """A compiled step, which takes one evaluation at a time; ``each``: the inputs that have one for every one."""
        torch.set_num_threads(threads)
        package = torch._inductor.aoti_load_package(str(path))

        def call(inputs: list[Tensor]) -> list[Tensor]:
            outputs = inputs[:1]
            for e in range(inputs[self.inputs.index("timestep")].shape[1]):
                now = [x[:, e : e + 1].contiguous() if name in each else x for name, x in zip(self.inputs, inputs)]  # noqa: B905
                outputs = package(outputs[0], *now[1:])
            return list(outputs)

        return call

    def say(self, what: str) -> None:
        """In Triton's log, where `vqd up` looks while it waits."""
        pb_utils.Logger.log_info(f"{self.name}: {what}")

    def warm_up(self, inputs: list[dict[str, Any]], sample: dict[str, Any], sizes: list[int]) -> None:
        """Run every batch size whose time and memory are not too much; the others are served, too."""
        for i, rows in enumerate(sizes):
            batch = f"{rows} rows" if rows > 1 else "1 row"
            self.say(f"warming {batch} ({i + 1} of {len(sizes)})")
            before = memory("VmRSS")
            seconds = self.warm(inputs, sample, rows)
            growth = max(sizes[i + 1 : i + 2], default=0) / rows
            took = memory("VmHWM") - before
            if growth and (seconds * growth > LONG_S or took * growth > free_memory()):
                rest = ", ".join(map(str, sizes[i + 1 :]))
                self.say(f"{batch} took {seconds:.1f} s and {took >> 20} MB; not warming {rest}, slower at first")
                return

    def warm(self, inputs: list[dict[str, Any]], sample: dict[str, Any], rows: int) -> float:
        """Seconds of one run."""
        batch = {}
        for entry in inputs:
            value, dims = sample[entry["name"]]
            dtype = pb_utils.triton_string_to_numpy(entry["data_type"])
            batch[entry["name"]] = torch.from_numpy(np.full((rows, *dims), value, dtype))
        # Twice: TorchScript profiles the first run and optimises in the second.
        self.run(batch)
        began = time.monotonic()
        self.run(batch)
        return time.monotonic() - began

    @torch.inference_mode()
    def run(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Inputs go by argument name, outputs come in config order."""
        return list(self.call([inputs[name] for name in self.inputs]))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        try:
            arrays = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            outputs = self.run({name: torch.from_numpy(array) for name, array in arrays.items()})
            return pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, output.contiguous().numpy())
                    for name, output in zip(self.outputs, outputs, strict=True)
                ]
            )
        except Exception as error:  # the caller gets it; Triton and the other requests carry on
            return pb_utils.InferenceResponse([], pb_utils.TritonError(f"{type(error).__name__}: {error}"))


def device_of(args: dict[str, str]) -> str:
    """The GPU that Triton gives this instance, if this torch can use one."""
    if args["model_instance_kind"] == "GPU" and torch.cuda.is_available():
        return f"cuda:{args['model_instance_device_id']}"
    return "cpu"


def compute_exactly() -> None:
    """float32 is float32, and a convolution takes no kernel whose sums change from run to run."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def give_back_large_blocks() -> None:
    """Have the C library ask the kernel for each block of a MB or more, and give it back when it is freed.

    Else what a large model computes with stays between what is in use, up to once more the size of its weights.
    """
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)


def memory(name: str) -> int:
    """Bytes of a line of our own status."""
    return field(Path("/proc/self/status"), name)


def field(file: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def free_memory() -> int:
    """Bytes that this machine, or this container, has left for us."""
    free = field(Path("/proc/meminfo"), "MemAvailable")
    with suppress(OSError, ValueError):  # no container's bound
        free = min(free, int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text()))
    return free
