"""Call a model on inputs (B, C, *S): its dtype, its further inputs, a fixed batch, and errors in one sentence."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalError, ExtremalValueError, NetworkError
from extremal.file_checks import describe_error
from extremal.networks.memory import is_out_of_memory, row_error
from extremal.networks.outputs import concatenate_outputs, find_tensors, has_single_row, to_float32
from extremal.networks.torch_state import has_default_device

MakeInputs = Callable[[Tensor], object]  # x (B, C, *S) -> a tuple of arguments, a dict of keyword arguments, or one


MAX_REPEATED_CHANGE = 0.01  # of the largest score, by which a second answer of a black box may differ


class StopEvaluation(Exception):
    """Base of exceptions by which hooks end an evaluation on purpose."""


class ModelCall:
    """Calls a model on inputs (B, C, *S); one row at a time if it takes a batch of one only.

    >>> call = ModelCall(nn.Linear(2, 2).half(), "toy", torch.float16)
    >>> call(torch.ones(3, 2)).dtype
    torch.float32

    Args:
        model: in the state in which it is evaluated.
        name: of the network, for messages.
        dtype: to which inputs are converted; None: they are not.
        make_inputs: x (B, C, *S) -> the model's arguments; None: x itself.
    """

    def __init__(
        self, model: nn.Module, name: str, dtype: torch.dtype | None = None, make_inputs: MakeInputs | None = None
    ) -> None:
        self._model, self._name, self._dtype, self._make_inputs = model, name, dtype, make_inputs
        self.row_error: BaseException | None = None  # that several rows raised, if they are evaluated one at a time
        self._has_succeeded = False

    def __call__(self, x: Tensor, *, by_row: bool = True) -> object:
        """Return the model's output, in single precision at least.

        Args:
            x: (B, C, *S).
            by_row: whether several rows may be evaluated one at a time.

        Raises:
            ExtremalValueError: the model raises an error for the first inputs, also for one row.
            NetworkError: it raises an error later on. Errors of the operating system pass unchanged.
        """
        is_single, by_row = by_row and len(x) == 1, by_row and len(x) > 1
        is_split = by_row and self.row_error is not None
        try:
            output = self._call_each(x) if is_split else self._call(x)
        except (Exception, SystemExit) as error:
            if is_single and is_out_of_memory(error):
                raise row_error(tuple(x.shape[1:])) from error
            if isinstance(error, ExtremalError | StopEvaluation | OSError) or is_out_of_memory(error):
                raise
            outputs = self._try_each(x, error) if by_row and not is_split else None
            if outputs is not None:
                return outputs
            raise self._convert_error(x, error) from error
        if by_row and not is_split and has_single_row(output):
            output = self._try_each(x, ValueError("it returns one row"))
        self._has_succeeded = True
        return output

    def check_batched(self, x: Tensor) -> None:
        """Raise if a model for images takes an input (1, H, W) without its batch axis; costs an evaluation of it."""
        layers = [module for module in self._model.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
        if x.ndim != 3 or not layers:
            return

        def check(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].ndim == 3:
                raise ExtremalValueError(
                    f"a network for images must take inputs (N, C, H, W), {self._name} got {_describe_shape(x)}; add "
                    "the batch axis with x[None]"
                )

        with ExitStack() as hooks, torch.no_grad():
            for module in layers:
                hooks.callback(module.register_forward_pre_hook(check).remove)
            self(x[:1])

    def check_repeatable(self, x: Tensor) -> None:
        """Raise if a black box answers the same inputs differently; costs two evaluations of them."""
        first, second = (find_tensors(self(x.clone())) for _ in range(2))  # it may change them in place
        for one, other in zip(first, second, strict=False):
            if one.shape != other.shape:
                raise ExtremalValueError(
                    f"a black box must give the same answer for the same input, {self._name} returned "
                    f"{tuple(one.shape)} and then {tuple(other.shape)}; return a row of scores of all classes"
                )
            largest = float(one.nan_to_num(0.0, 0.0, 0.0).abs().max())
            change = float((one - other).nan_to_num(0.0, 0.0, 0.0).abs().max())
            if change > MAX_REPEATED_CHANGE * largest:
                raise ExtremalValueError(
                    f"a black box must give the same answer for the same input, {self._name}'s scores changed by up to "
                    f"{change:.3g} in a second call, the largest is {largest:.3g}; switch off noise and sampling in it"
                )

    def _call(self, x: Tensor) -> object:
        if self._dtype is not None:
            x = x.to(self._dtype)
        with torch.device(x.device) if has_default_device() else nullcontext():
            arguments = x if self._make_inputs is None else self._make_inputs(x)
            if isinstance(arguments, Mapping):
                output = self._model(**arguments)
            elif isinstance(arguments, tuple):
                output = self._model(*arguments)
            else:
                output = self._model(arguments)
        if any(tensor.is_inference() for tensor in find_tensors(output)):
            raise ExtremalValueError(self._describe_inference_mode())
        return to_float32(output)

    def _call_each(self, x: Tensor) -> object:
        # contiguous: of a view of a single row in another layout, torch's batch norm computes a wrong gradient
        return concatenate_outputs([self._call(row.contiguous()) for row in torch.split(x, 1)])

    def _try_each(self, x: Tensor, error: BaseException) -> object | None:
        """Return the output of a batch evaluated one row at a time, from now on always; None if rows fail as well."""
        try:
            output = self._call_each(x)
        except (ExtremalError, OSError):
            raise
        except (Exception, SystemExit) as row_error:
            if is_out_of_memory(row_error):
                raise
            return None
        self.row_error = error
        return output

    def _convert_error(self, x: Tensor, error: BaseException) -> ExtremalError:
        """Return an error of the model as one sentence: what it was given, what it raised, and what may help."""
        if "nference tensor" in describe_error(error):
            return ExtremalValueError(self._describe_inference_mode())
        reason = f"{self._name} raised {type(error).__name__} for {_describe_shape(x)}: {describe_error(error)}"
        if self._has_succeeded:
            return NetworkError(f"a network must be evaluated without an error, {reason}; correct it")
        return ExtremalValueError(f"a network must take the prepared input, {reason}; {self._find_remedy(x)}")

    def _describe_inference_mode(self) -> str:
        return (
            f"a network must compute with a gradient, {self._name} computes in torch.inference_mode; remove it from "
            "its forward"
        )

    def _find_remedy(self, x: Tensor) -> str:
        if self._make_inputs is not None:
            return "check what its function inputs returns"
        required = _find_required_arguments(self._model)
        if len(required) > 1 or any(argument.kind is argument.KEYWORD_ONLY for argument in required):
            names = ", ".join(f"{argument.name!r}: ..." for argument in required)
            return f"pass all that it takes with Network(model, inputs=lambda x: {{{names}}})"
        if x.ndim == 3:
            return "add the batch axis with x[None] if it is missing"
        if x.ndim == 4 and x.shape[1] > 4 and x.shape[3] in (1, 3, 4):
            return "put the channels first with x.movedim(-1, 1)"
        return (
            "check the input's size and channels; if it takes a dict or further inputs, pass them with "
            "Network(model, inputs=lambda x: ...)"
        )


def _describe_shape(x: Tensor) -> str:
    """Return how inputs (B, C, *S) are read, in words."""
    places = " × ".join(map(str, x.shape[2:]))
    return f"an input (N, C, *S) of {x.shape[1]} channels with {places} places"


def _find_required_arguments(model: nn.Module) -> Sequence[inspect.Parameter]:
    """Return the arguments of a model's `forward` that have no default; none if they are unknown."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in parameters if one.default is one.empty and one.kind not in variadic]
