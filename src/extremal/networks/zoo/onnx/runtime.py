"""Evaluate an ONNX file by onnxruntime, as the reference that its conversion is compared with."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.outputs import find_tensors

TOLERANCE = 1e-3  # of the largest value, by which outputs may differ; TF32 of GPUs rounds to 5e-4


def open_session(path: Path, *, optimised: bool = True) -> Any:
    """Open an ONNX file with onnxruntime on the CPU, with as many threads as torch.

    Args:
        path: of a file that was checked.
        optimised: whether onnxruntime may rewrite the graph, which evaluates constant parts of it at once.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class RuntimeReference:
    """Compares outputs of a converted network with those of onnxruntime, for one row at a time.

    Args:
        path: of the file.
        name: of the network, for messages.
        input_name: of its input.
        output_name: of the output that is compared.
    """

    def __init__(self, path: Path, name: str, input_name: str, output_name: str) -> None:
        self._path, self._name, self._input_name, self._output_name = path, name, input_name, output_name

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: all but the session."""
        return {name: value for name, value in vars(self).items() if name != "_session"}

    @cached_property
    def _session(self) -> Any:
        return open_session(self._path, optimised=False)

    def evaluate(self, x: Tensor) -> Tensor:
        """Return onnxruntime's output for inputs (B, C, *S), evaluated one row at a time."""
        pixels = x.detach().cpu().float().numpy()
        rows = [self._session.run([self._output_name], {self._input_name: pixels[i : i + 1]}) for i in range(len(x))]
        return torch.from_numpy(np.concatenate([row[0] for row in rows]))

    def differ_by(self, x: Tensor, output: object) -> float:
        """Return the largest difference of an output, relative to the largest value of onnxruntime's; NaN counts."""
        (tensor,) = find_tensors(output)
        expected = self.evaluate(x)
        if tensor.shape != expected.shape:
            return float("inf")
        difference = (tensor.detach().cpu().float() - expected).abs().amax() / expected.abs().amax().clamp_min(1e-12)
        return float(difference) if difference.isfinite() else float("inf")

    def __call__(self, x: Tensor, output: object) -> None:
        """Check an output for inputs (B, C, *S).

        Raises:
            ExtremalValueError: it is not that of onnxruntime.
        """
        difference = self.differ_by(x, output)
        if difference > TOLERANCE:
            raise ExtremalValueError(
                f"a converted ONNX network must compute what onnxruntime computes, {quote(self._name)[1:-1]} differs "
                f"by {difference:.2g} of the largest value ({TOLERANCE:g} is allowed); load the original in Python"
            )
