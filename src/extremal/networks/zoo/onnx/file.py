"""Read an ONNX file: its form is checked before anything in it is converted or evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, quote
from extremal.networks.zoo.huggingface_sizes import MAX_SIDE

MAX_FILE_BYTES = 2**31  # of a protobuf message
DOMAINS = ("", "ai.onnx")  # of the operators of ONNX itself
CONTROL_OPERATORS = ("If", "Loop", "Scan", "SequenceMap")
QUANTISED_OPERATORS = (
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear", "DequantizeLinear"),
    "DynamicQuantizeLinear",
)
OTHER_PREFIXES = ("String", "Sequence", "Optional", "Regex", "TfIdf", "ImageDecoder", "SplitToSequence")  # no tensors


class UnsupportedFile(Exception):
    """Raised if an ONNX file is intact but cannot be explained.

    Args:
        rule: what it must do: "have one input".
        problem: what it does instead.
        remedy: what the user may do.
    """

    def __init__(self, rule: str, problem: str, remedy: str) -> None:
        super().__init__(rule)
        self.rule, self.problem, self.remedy = rule, problem, remedy


@dataclass(frozen=True)
class InputForm:
    """The input that a file declares.

    Attributes:
        name: of the input.
        sizes: of its axes; None: variable.
    """

    name: str
    sizes: tuple[int | None, ...]


def read_model(path: Path, name: str) -> Any:
    """Read an ONNX file with its weights, which may lie in further files of the same folder.

    Args:
        path: of the file.
        name: of the file in messages, quoted.

    Raises:
        UnsupportedFile: it has operators or weights that cannot be explained.
        ExtremalValueError: it is no regular file or too large, or a file of weights is.
        Exception: it is damaged.
    """
    import onnx

    check_file(path, "an ONNX network", name=name, max_bytes=MAX_FILE_BYTES)
    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())
    if not model.graph.node:
        raise ValueError("it has no operators")
    _check_external_files(model, path)
    onnx.load_external_data_for_model(model, str(path.parent))
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    onnx.checker.check_model(model)
    _check_operators(model)
    _check_weights(model)
    return model


def _list_tensors(model: Any) -> Iterator[Any]:
    """Yield the tensors of a model: weights, and values of attributes."""
    yield from model.graph.initializer
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t


def _check_external_files(model: Any, path: Path) -> None:
    """Check files of weights: in the folder of the model, regular, and as large as what is read from them.

    Raises:
        ExtremalValueError: a file is missing, elsewhere or too small.
    """
    from onnx import TensorProto

    wanted: dict[Path, int] = {}
    for tensor in _list_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = Path(entries.get("location", ""))
        if location.is_absolute() or ".." in location.parts or not location.parts:
            raise ExtremalValueError(
                f"weights of an ONNX network must lie in its folder, got {quote(path)} with {quote(location)}; copy "
                "them there"
            )
        file = path.parent / location
        size = check_file(file, "weights of an ONNX network", remedy="copy it there with the .onnx file")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        wanted[file] = wanted.get(file, 0) + length
        if offset < 0 or length < 0 or offset + length > size or wanted[file] > 2 * size:
            raise ExtremalValueError(
                f"weights of an ONNX network must be complete, got {quote(file)} with {size:,} bytes, which is too "
                "small; copy it again"
            )


def _check_operators(model: Any) -> None:
    from onnx import defs

    for node in model.graph.node:
        kind = node.op_type
        if kind in QUANTISED_OPERATORS:
            raise UnsupportedFile(
                "have operators that pass a gradient",
                f"with the quantised operator {quote(kind)[1:-1]}",
                "export it before it is quantised",
            )
        is_known = node.domain in DOMAINS and defs.has(kind)
        if not is_known or kind in CONTROL_OPERATORS or kind.startswith(OTHER_PREFIXES):
            domain = f" of {quote(node.domain)[1:-1]}" if node.domain else ""
            raise UnsupportedFile(
                "have operators of ONNX on tensors, without control flow",
                f"with the operator {quote(kind)[1:-1]}{domain}",
                "export it without, or load the original in Python",
            )


def _check_weights(model: Any) -> None:
    from onnx import TensorProto

    halves = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    for tensor in _list_tensors(model):
        if tensor.data_type in halves:
            raise UnsupportedFile(
                "compute in float32", f"with weights in {halves[tensor.data_type]}", "export it in float32"
            )


def read_input(model: Any) -> InputForm:
    """Return the input of a model, which must be one float32 tensor (N, C, *S).

    Raises:
        UnsupportedFile: it is not.
    """
    from onnx import TensorProto

    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in stored]
    if len(inputs) != 1:
        listed = ", ".join(quote(one.name) for one in inputs) or "none"
        raise UnsupportedFile(
            "have one input", f"with {len(inputs)} ({listed})", "export it with the others as constants"
        )
    kind = inputs[0].type.tensor_type
    sizes = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim)
    shown = f"({', '.join('any' if size is None else str(size) for size in sizes)})"
    if kind.elem_type != TensorProto.FLOAT:
        raise UnsupportedFile(
            "take floating inputs in float32",
            f"which takes {TensorProto.DataType.Name(kind.elem_type).lower()} {shown}",
            "export it in float32, without its preprocessing",
        )
    if not 3 <= len(sizes) <= 5 or any(size is not None and size > MAX_SIDE for size in sizes):
        raise UnsupportedFile(
            f"take inputs (N, C, *S) of at most {MAX_SIDE} places a side",
            f"which takes {shown}",
            "export it with these",
        )
    if len(sizes) == 4 and sizes[-1] in (1, 3) and sizes[1] not in (1, 3):
        raise UnsupportedFile("have channels on axis 1", f"which takes {shown}", "export it with channels first")
    if sizes[0] not in (None, 1):
        raise UnsupportedFile(
            "take any batch, or batches of one",
            f"which takes {sizes[0]} rows at once",
            "export it with a variable batch axis",
        )
    return InputForm(inputs[0].name, sizes)


def describe_failure(path: str, error: Exception) -> ExtremalValueError:
    """Return the error for a file that cannot be read or explained; `path` is as the user gave it."""
    if isinstance(error, ExtremalValueError):
        return error
    if isinstance(error, UnsupportedFile):
        return ExtremalValueError(
            f"an ONNX network must {error.rule}, got {quote(path)} {error.problem}; {error.remedy}"
        )
    return ExtremalValueError(
        f"an ONNX network must be a complete file that onnx2pytorch converts, got {quote(path)}: "
        f"{type(error).__name__}, {describe_error(error)}; export or copy it again"
    )
