"""Extremal perturbations as a method of captum: the interface of `captum.attr.Attribution`.

>>> from extremal.captum import ExtremalPerturbation
>>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
>>> ExtremalPerturbation(toy).attribute(torch.rand(1, 3, 16, 16), target=1, areas=(0.1, 0.3)).shape
torch.Size([1, 3, 16, 16])
"""

from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar, Unpack

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.networks.inputs import validate_input
from extremal.networks.network import Network
from extremal.number_checks import is_whole
from extremal.scores import ClassGroup
from extremal.scores.target import Target, per_input

try:
    from captum.attr import Attribution
    from captum.log import log_usage
except ModuleNotFoundError as missing:
    raise ImportError(
        f"extremal.captum requires captum, got {str(missing)!r}; pip install 'extremal[benchmark]'", name="captum"
    ) from missing

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])  # captum's rule: the type of the result is that of the inputs
Classes = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None  # captum's targets


class ExtremalPerturbation(Attribution):  # type: ignore[misc]
    """Attribution by the smallest smooth regions that a network's answer needs.

    An `nn.Module` is evaluated in evaluation mode with its parameters frozen, and restored exactly. Any other callable
    is called unchanged: a network inside it that is in training mode applies dropout and updates its batch statistics.
    No `.grad` is written in either case.

    Args:
        forward_func: inputs (B, C, *S), further arguments -> (B, classes), (B,) or (B, 1), with a gradient.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        if not callable(forward_func):
            raise ExtremalTypeError(
                f"forward_func must be a torch.nn.Module or another callable, got {type(forward_func).__name__}; "
                "e.g. the module inside it"
            )
        super().__init__(forward_func)

    @log_usage()  # type: ignore[untyped-decorator]  # NoiseTunnel calls what captum's decorator wraps
    def attribute(
        self,
        inputs: Inputs,
        target: Classes = None,
        additional_forward_args: object = None,
        *,
        settings: Settings | None = None,
        **options: Unpack[SettingsOptions],
    ) -> Inputs:
        """Return `Explanation.saliency()`, the same in every channel of a place.

        Args:
            inputs: (N, C, *S), or a tuple of this one tensor.
            target: as `explain` below.
            additional_forward_args: as `explain` below.
            settings, options: as for `extremal.explain`.

        Returns:
            (N, C, *S) ≥ 0 with the inputs' device and dtype; in a tuple if the inputs are.

        Raises:
            ExtremalValueError, ExtremalTypeError: input that breaks a rule.
        """
        found = self.explain(inputs, target, additional_forward_args, settings=settings, **options)
        x = _single_tensor(inputs)
        maps = found.saliency().to(x).expand_as(x).contiguous()
        return (maps,) if isinstance(inputs, tuple) else maps

    def explain(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Classes = None,
        additional_forward_args: object = None,
        *,
        settings: Settings | None = None,
        **options: Unpack[SettingsOptions],
    ) -> Explanation:
        """Return the full result from which the map is made: masks, scores, evidence.

        Args:
            inputs: (N, C, *S), or a tuple of this one tensor.
            target: a class for all inputs, or a tensor or list with one per input; None if there is one output only. A
                list of classes inside the list, or a `scores.ClassGroup`, is a group of classes. A
                tuple, or a list of one per input, is the index of a single value in an output of more dimensions; this
                value is the score, and `score`, which applies to classes, has no effect. A class of an output of more
                dimensions is scored by its mean over the positions, as in `extremal.explain`.
            additional_forward_args: passed after the inputs; several as a tuple. The rows of a tensor belong to the
                inputs, which are then explained one by one.
            settings, options: as for `extremal.explain`.

        Raises:
            ExtremalValueError, ExtremalTypeError: input that breaks a rule.
        """
        merged = merge_settings(settings, options)
        x = validate_input(_single_tensor(inputs))
        extra, targets = _extra_arguments(additional_forward_args, len(x)), _parse_class_target(target, len(x))

        def explain_part(part: Tensor, arguments: tuple[object, ...], part_target: Target) -> Explanation:
            network = _network(self.forward_func, part, arguments, target is None)
            return explain(network, part, part_target, settings=merged)

        if not any(map(_has_rows, extra)):
            return explain_part(x, extra, targets)
        results = []
        for n, input_target in enumerate(per_input(targets, len(x)) or [targets] * len(x)):
            row = slice(n, n + 1)
            arguments = tuple(value[row] if _has_rows(value) else value for value in extra)
            try:
                results.append(explain_part(x[row], arguments, input_target))
            except ExtremalError as error:
                error.add_note(f"This was input {n}: with further arguments each is explained by itself, as input 0.")
                raise
        return Explanation.concatenate(results)


class _Forward(nn.Module):
    """A callable as a module: it passes the further arguments, repeated for every evaluated row.

    Args:
        call: x, further arguments -> output.
        x: (N, C, *S), for device and dtype if the callable has no tensors.
        extra: the further arguments; a tensor has one row, of the one input that is explained.
        single: the output is one number per input, and becomes (B, 1).
    """

    anchor: Tensor

    def __init__(self, call: Callable[..., Any], x: Tensor, extra: tuple[object, ...], single: bool) -> None:
        super().__init__()
        self.call, self.extra, self.single = call, extra, single
        if not _has_weights(call):
            with torch.inference_mode(False):
                anchor = torch.zeros((), device=x.device, dtype=x.dtype)
            self.register_buffer("anchor", anchor, persistent=False)

    def forward(self, x: Tensor) -> Any:
        output = self.call(x, *(_copy_argument(value, len(x)) for value in self.extra))
        if not self.single:
            return output
        if not isinstance(output, Tensor) or output.shape[:1] != x.shape[:1] or output.numel() != len(x):
            raise ExtremalValueError(
                f"target must be given where a network returns more than one number an input, got None for "
                f"{_describe_shape(output)}; name the class, e.g. target=0"
            )
        return output.view(-1, 1)


def _network(call: Callable[..., Any], x: Tensor, extra: tuple[object, ...], single: bool) -> Network:
    """Return the forward function as a network; a module with weights and no further arguments is used unchanged."""
    if isinstance(call, nn.Module) and _has_weights(call) and not extra and not single:
        return Network(call)
    return Network(_Forward(call, x, extra, single), name=getattr(call, "__name__", type(call).__name__))


def _has_weights(call: object) -> bool:
    """Return whether it is a module whose tensors define device and dtype."""
    return isinstance(call, nn.Module) and any(t.is_floating_point() for t in (*call.parameters(), *call.buffers()))


def _single_tensor(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the only input tensor, given directly or in a tuple."""
    several = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(several) != 1:
        raise ExtremalValueError(
            f"inputs must be one tensor (N, C, *S), got a tuple of {len(several)}; a mask is for one tensor: hand the "
            "others in as additional_forward_args"
        )
    if not isinstance(several[0], Tensor):
        raise ExtremalTypeError(
            f"inputs must be a tensor (N, C, *S), or a tuple of one, got {type(several[0]).__name__}; "
            "e.g. torch.from_numpy(array)"
        )
    return several[0]


def _extra_arguments(extra: object, count: int) -> tuple[object, ...]:
    """Return the arguments after the inputs; rows of their tensors belong to the inputs."""
    if extra is None:
        return ()
    values = extra if isinstance(extra, tuple) else (extra,)
    for value in values:
        if _has_rows(value) and len(value) != count:
            raise ExtremalValueError(
                f"a tensor of additional_forward_args must have a row for each of {count} inputs, got shape "
                f"{tuple(value.shape)}; bind what is the same for all, e.g. lambda x: model(x, value)"
            )
    return values


def _has_rows(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim > 0


def _copy_argument(value: object, rows: int) -> object:
    """Return an argument for a number of rows, as a copy that the network may overwrite."""
    if not isinstance(value, Tensor):
        return value
    return (value.expand(rows, *value.shape[1:]) if value.ndim else value).detach().clone()


def _parse_class_target(target: Any, count: int) -> Target:
    """Return captum's target as `explain` takes it: one number applies to all inputs, a tuple is an index."""
    if target is None:
        return 0
    if isinstance(target, tuple):
        return _value_at(target)
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.item()
    each = per_input(target, count)
    return target if each is None else [_parse_single_target(one) for one in each]


def _parse_single_target(target: Any) -> Any:
    """Return the target of one input: a tuple is an index of a value, a list a group of classes."""
    if isinstance(target, tuple):
        return _value_at(target)
    return ClassGroup(target) if isinstance(target, list) else target


def _value_at(index: tuple[int, ...]) -> Callable[[object], Tensor]:
    """Return a score that reads one value of an output with more dimensions than (B, classes)."""

    def value(output: object) -> Tensor:
        shape = output.shape[1:] if isinstance(output, Tensor) else ()
        inside = [is_whole(i) and 0 <= i < size for i, size in zip(index, shape, strict=False)]
        if not isinstance(output, Tensor) or not len(index) == len(shape) == sum(inside):
            raise ExtremalValueError(
                f"a tuple as target must be the index of one value in the output, got {index} for "
                f"{_describe_shape(output)}; leave out the batch dimension, and give an index for each of the others"
            )
        return output.movedim(0, -1)[tuple(i.__index__() for i in index)]

    value.__name__ = f"output[:, {', '.join(map(str, index))}]"
    return value


def _describe_shape(output: object) -> str:
    """Return the shape of an output, or its type."""
    return str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"


__all__ = ["ExtremalPerturbation"]
