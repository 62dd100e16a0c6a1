"""Networks from ONNX files: converted by onnx2pytorch, tried on an example, and compared with onnxruntime."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import Notice, check_installed
from extremal.file_checks import quote
from extremal.networks.names import check_no_weights
from extremal.networks.network import Network
from extremal.networks.network_files import check_onnx_file
from extremal.networks.zoo.exported_sizes import check_exported_sizes
from extremal.networks.zoo.onnx.file import InputForm, UnsupportedFile, describe_failure, read_input, read_model
from extremal.networks.zoo.onnx.graph import (
    drop_inference_modes,
    free_batch,
    keep_output,
    lift_constants,
    rename_values,
)
from extremal.networks.zoo.onnx.runtime import TOLERANCE, RuntimeReference
from extremal.networks.zoo.preprocessing import CenterCropResize
from extremal.networks.zoo.pt2.trial import SizeLimits
from extremal.networks.zoo.weights import Weights

DEFAULT_SIDE = 224  # places of a variable side of the example
DEFAULT_CHANNELS = 3


def load(path: str, weights: Weights) -> Network:
    """Load a network from an ONNX file, whose output is compared with that of onnxruntime.

    The file may have one input (N, C, *S) in float32 and any number of outputs. The only one (N, classes) is used; a
    single output may have any shape. A file that takes one row at a time is evaluated row by row, which is
    slower. The output is compared at once on noise, and on the first input of each run: it may differ by a thousandth
    of its largest value.

    A file does not describe preprocessing: an image is cropped at its centre, resized to the declared size (not resized
    if that is variable), and scaled to [0, 1], as a notice says; there are no class names. Pass others with
    `dataclasses.replace(load(...), preprocess=..., mean=..., std=..., labels=...)`.

    Args:
        path: the file.
        weights: None, the file has them.

    Raises:
        ExtremalValueError: the file does not exist, is damaged, cannot be converted, passes no gradient, or its
            conversion has another output than onnxruntime.
        MissingDependencyError: the extra `onnx` is not installed.
    """
    name, noun = f"onnx:{path}", "an ONNX network"
    check_no_weights(name, weights)
    file = check_onnx_file(path)
    check_installed("onnx", "onnx2pytorch", "onnxruntime", purpose=noun, extra="onnx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module, form, reference = _convert(file, name, quote(path))
    except Exception as error:  # a damaged file can fail in any way
        raise describe_failure(path, error) from None
    preprocess = None
    if len(form.sizes) == 4 and form.sizes[1] in (None, 1, 3):
        preprocess = CenterCropResize(*form.sizes[1:])
        sides = [size for size in form.sizes[2:] if size is not None]
        resized = f"cropped and resized to {sides[0]}×{sides[1]} px and " if len(sides) == 2 else ""
        warnings.warn(
            f"{quote(name)[1:-1]} does not describe its preprocessing: images are {resized}scaled to 0 .. 1, which may "
            "differ from that in training",
            Notice,
            stacklevel=5,  # the caller of `zoo.load`
        )
    return Network(module.eval(), preprocess, (), name, (0.0,), (1.0,), check_output=reference)


class OnnxModule(nn.Module):
    """Runs a converted graph; a graph that takes one row at a time raises an error for several.

    Args:
        converted: by onnx2pytorch.
        sizes: of the input's axes; None: variable.
    """

    def __init__(self, converted: nn.Module, sizes: tuple[int | None, ...]) -> None:
        super().__init__()
        self.converted, self.sizes = converted, sizes
        self.takes_batches = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, ...)."""
        check_exported_sizes(x, self.sizes, "the ONNX network", "export the network with variable sizes")
        if len(x) > 1 and not self.takes_batches:
            raise ValueError("the ONNX file was exported for one row")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converter's, about operators that may differ; the output is compared
            output: Tensor = self.converted(x)
        return output


def _convert(file: Path, name: str, quoted: str) -> tuple[OnnxModule, InputForm, RuntimeReference]:
    """Read, convert and check a file."""
    model = read_model(file, quoted)
    form = read_input(model)
    outputs = [output.name for output in model.graph.output]
    lift_constants(model.graph)
    drop_inference_modes(model.graph)
    rows = torch.rand(2, *_example_sizes(form), generator=torch.Generator().manual_seed(0))
    output = outputs[0] if len(outputs) == 1 else _choose_output(model, outputs, rows[:1])
    keep_output(model.graph, output)
    module = OnnxModule(_convert_graph(model), form.sizes).eval()
    with SizeLimits(), torch.no_grad():
        scores = module(rows[:1])
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise UnsupportedFile("return a floating tensor", "which does not", "export its scores")
    reference = RuntimeReference(file, name, form.name, output)
    reference(rows[:1], scores)
    _check_gradient(module, rows[:1])
    module.takes_batches = _takes_batches(module, rows, reference)
    if not module.takes_batches:  # its shapes may be those of one row only because it was exported so
        free_batch(model.graph)
        freed = OnnxModule(_convert_graph(model), form.sizes).eval()
        if _takes_batches(freed, rows, reference):
            return freed, form, reference
    return module, form, reference


def _example_sizes(form: InputForm) -> tuple[int, ...]:
    channels, *sides = form.sizes[1:]
    return (channels or DEFAULT_CHANNELS, *(side or DEFAULT_SIDE for side in sides))


def _convert_graph(model: Any) -> nn.Module:
    """Convert a graph; the weights of `model` are released.

    Raises:
        UnsupportedFile: the converter does not know an operator.
    """
    import onnx
    from onnx2pytorch import ConvertModel

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    rename_values(copied.graph)
    try:
        module: Any = ConvertModel(copied)
    except NotImplementedError as error:
        raise UnsupportedFile(
            "have operators that onnx2pytorch converts", f"with others ({error})", "load the original in Python"
        ) from None
    del copied.graph.initializer[:]  # the module has them
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    result: nn.Module = module
    return result


def _choose_output(model: Any, outputs: list[str], x: Tensor) -> str:
    """Return the only output with the shape (N, classes).

    Raises:
        UnsupportedFile: there is none, or several.
    """
    with SizeLimits(), torch.no_grad():
        values = _convert_graph(model)(x)
    shapes = {
        name: tuple(value.shape) for name, value in zip(outputs, values, strict=True) if isinstance(value, Tensor)
    }
    found = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == 1 and shape[1] > 1]
    if len(found) != 1:
        listed = ", ".join(f"{quote(name)} {shape}" for name, shape in shapes.items())
        raise UnsupportedFile(
            "have one output, or one of them (N, classes)",
            f"with {len(outputs)}: {listed}",
            "remove the others, e.g. with onnx.utils.extract_model",
        )
    return found[0]


def _check_gradient(module: nn.Module, x: Tensor) -> None:
    """Check that a gradient reaches the input.

    Raises:
        UnsupportedFile: it does not.
    """
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        output = module(x)
        weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(1))
        gradient = None
        if output.requires_grad:
            (gradient,) = torch.autograd.grad((output * weights).sum(), x, allow_unused=True)
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise UnsupportedFile("pass a gradient to its input", "which does not", "load the original in Python")


def _takes_batches(module: OnnxModule, rows: Tensor, reference: RuntimeReference) -> bool:
    """Return whether two rows evaluated at once have the outputs that they have one at a time."""
    try:
        with SizeLimits(), torch.no_grad():
            output = module(rows)
    except Exception:  # shapes in the graph are those of one row
        return False
    return reference.differ_by(rows, output) <= TOLERANCE
