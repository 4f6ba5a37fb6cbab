"""Triton python backend: runs the TorchScript file of its version folder. ``export`` copies it beside each model.pt.

It runs inside Triton's own process, so it imports nothing of this package. One request is one batch.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

# The stub embeds an isolated Python, which ignores PYTHONPATH: without this line it finds no torch.
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # noqa: E402
from torch import Tensor  # noqa: E402


class TritonPythonModel:
    """The class name that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load, hold the file against its config, and warm up; Triton is ready only when this returns."""
        config = json.loads(args["model_config"])
        settings = {key: entry["string_value"] for key, entry in config["parameters"].items()}
        threads = int(settings["threads"]) or len(os.sched_getaffinity(0))
        path = Path(args["model_repository"], args["model_version"], "model.pt")
        self.module = torch.jit.load(str(path)).eval()
        # It spreads over the cores by itself: threads of single operators would wait for each other, and do so busily.
        self.module.parts = threads
        torch.set_num_interop_threads(threads)
        torch.set_num_threads(1)
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        arguments = [argument.name for argument in self.module.forward.schema.arguments[1:]]
        if sorted(arguments) != sorted(self.inputs):
            raise pb_utils.TritonModelException(f"{path} takes {arguments}, its config has {self.inputs}")
        for rows in json.loads(settings["warm_sizes"]):
            self.warm(config["input"], json.loads(settings["sample"]), rows)

    def warm(self, inputs: list[dict[str, Any]], sample: dict[str, Any], rows: int) -> None:
        batch = {}
        for entry in inputs:
            value, dims = sample[entry["name"]]
            dtype = pb_utils.triton_string_to_numpy(entry["data_type"])
            batch[entry["name"]] = torch.from_numpy(np.full((rows, *dims), value, dtype))
        # Twice: TorchScript profiles the first run and optimises in the second.
        self.run(batch)
        self.run(batch)

    @torch.inference_mode()
    def run(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Inputs go by argument name, outputs come in config order."""
        result = self.module(**inputs)
        return list(result) if isinstance(result, tuple) else [result]

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
