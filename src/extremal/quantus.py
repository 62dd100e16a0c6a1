"""Extremal perturbations as an `explain_func` of Quantus."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError
from extremal.explanations.explain import explain as extremal_explain
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.scores.target import per_input


def explain(
    model: nn.Module,
    inputs: np.ndarray[Any, Any] | Tensor,
    targets: np.ndarray[Any, Any] | Sequence[int] | Tensor | int,
    *,
    device: object = None,
    method: object = None,
    settings: Settings | None = None,
    **options: Unpack[SettingsOptions],
) -> np.ndarray[Any, Any]:
    """Return `Explanation.saliency()` in the form that Quantus' metrics expect.

    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> explain(toy, np.random.default_rng(0).random((1, 3, 16, 16)), np.array([1]), areas=(0.1, 0.3)).shape
    (1, 1, 16, 16)

    Args:
        model: (B, C, *S) -> (B, classes); it comes back exactly as it was.
        inputs: (N, C, *S), channels first.
        targets: a class for each input, or one for all.
        device, method: passed by Quantus; without effect, since the model's own device is used.
        settings, options: as for `extremal.explain`; Quantus' `explain_func_kwargs`.

    Returns:
        (N, 1, *S) float32 ≥ 0.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule.
    """
    x = _read_inputs(inputs)
    x = x if x.is_floating_point() else x.float()  # as Quantus' own functions do
    classes = _read_array(targets.cpu() if isinstance(targets, Tensor) else targets, "targets", "(N,)")
    if classes.ndim > 1 and classes.size > 1:
        raise ExtremalTypeError(
            f"targets must be a class for each input, (N,), got shape {classes.shape}; Quantus has no groups of classes"
        )
    target: Any = classes.item() if classes.size == 1 else per_input(classes.tolist(), len(x))
    result = extremal_explain(model, x, target, settings=merge_settings(settings, options))
    return result.saliency().float().numpy()


def _read_inputs(inputs: Any) -> Tensor:
    """Return inputs as a tensor of real numbers."""
    if isinstance(inputs, Tensor):
        x, kind = inputs, str(inputs.dtype)
        is_real = not x.is_complex()
    else:
        array = _read_array(inputs, "inputs", "(N, C, *S)")
        kind, is_real = str(array.dtype), array.dtype.kind in "fiub"
        array = np.array(array, array.dtype.newbyteorder("="), order="C") if is_real else np.zeros(0)
        x = torch.from_numpy(array)
    if not is_real:
        raise ExtremalTypeError(f"inputs must be real numbers (N, C, *S), got {kind}; convert with .astype('float32')")
    return x


def _read_array(values: Any, name: str, shape: str) -> np.ndarray[Any, Any]:
    """Return values as an array; rows must have one length."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ExtremalTypeError(
            f"{name} must be an array, {shape}, got {type(values).__name__} of unequal rows; make their lengths equal"
        ) from None


__all__ = ["explain"]
