"""What captum's side says of input that breaks a rule."""

import importlib
import re
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Network
from extremal.captum import ExtremalPerturbation
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.masking.solvers import Path

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TWO = X.repeat(2, 1, 1, 1)
HERE: dict[str, Any] = {"areas": (0.2,), "solver": Path(steps=3, polish=1, rounds=1, draws=1, search=0)}


class Sides(nn.Module):
    """Two scores, of the upper and the lower half."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[..., :8, :].square().mean((1, 2, 3)), x[..., 8:, :].square().mean((1, 2, 3))], 1)


def refused(kind: type[ExtremalError], *args: Any, call: Any = None) -> str:
    with pytest.raises(kind) as caught:
        ExtremalPerturbation(Sides() if call is None else call).attribute(*args, **HERE)
    return str(caught.value)


def test_no_callable() -> None:
    with pytest.raises(ExtremalTypeError) as caught:
        ExtremalPerturbation(Network(Sides()))  # type: ignore[arg-type]
    assert str(caught.value) == (
        "forward_func must be a torch.nn.Module or another callable, got Network; e.g. the module inside it"
    )


@pytest.mark.parametrize("count", [0, 2])
def test_several_inputs(count: int) -> None:
    assert refused(ExtremalValueError, (X,) * count, 0) == (
        f"inputs must be one tensor (N, C, *S), got a tuple of {count}; a mask is for one tensor: hand the others "
        "in as additional_forward_args"
    )


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,)], ids=["plain", "tuple"])
def test_no_tensor(wrap: Any) -> None:
    assert refused(ExtremalTypeError, wrap(X.numpy()), 0) == (
        "inputs must be a tensor (N, C, *S), or a tuple of one, got ndarray; e.g. torch.from_numpy(array)"
    )


@pytest.mark.parametrize("shape", [(), (3,), (16, 16)], ids=str)
def test_no_batch(shape: tuple[int, ...]) -> None:
    assert refused(ExtremalValueError, torch.zeros(shape), 0) == (
        f"a prepared tensor must be (N, C, *S) with 1 to 3 spatial dimensions, got shape {shape}; "
        "add a batch axis with x[None] if it is missing"
    )


@pytest.mark.parametrize(
    ("call", "told"),
    [(Sides(), "(1, 2)"), (lambda x: Sides()(x).sum(), "()"), (lambda x: [Sides()(x)], "a list")],
    ids=["classes", "sum", "list"],
)
def test_no_target(call: Any, told: str) -> None:
    assert refused(ExtremalValueError, X, call=call) == (
        f"target must be given where a network returns more than one number an input, got None for {told}; "
        "name the class, e.g. target=0"
    )


@pytest.mark.parametrize("target", [[0], [0, 1, 1], torch.tensor([0, 1, 1]), []], ids=str)
def test_targets_of_another_count(target: Any) -> None:
    assert refused(ExtremalValueError, TWO, target) == (
        f"target must be one class, or one for each of 2 inputs, got {len(target)}"
    )


def test_several_targets_of_one_input() -> None:
    assert refused(ExtremalValueError, X, [0, 1]) == "target must be one class, or one for each of 1 inputs, got 2"


def test_no_such_class() -> None:
    assert refused(ExtremalValueError, X, 2) == "target must lie in 0..1 for Sides, got 2; classes are counted from 0"
    assert refused(ExtremalTypeError, X, torch.tensor(0.5)) == (
        "target must be a class index, a class name or a callable on the output, got float"
    )


@pytest.mark.parametrize("target", [(2,), (-1,), (0, 0), (), (0.0,)], ids=str)
def test_a_tuple_that_is_no_place(target: Any) -> None:
    assert refused(ExtremalValueError, X, target) == (
        f"a tuple as target must be the index of one value in the output, got {target} for (1, 2); "
        "leave out the batch dimension, and give an index for each of the others"
    )


def test_a_place_in_what_is_no_tensor() -> None:
    assert refused(ExtremalValueError, X, (0,), call=lambda x: [Sides()(x)]) == (
        "a tuple as target must be the index of one value in the output, got (0,) for a list; "
        "leave out the batch dimension, and give an index for each of the others"
    )


@pytest.mark.parametrize("more", [torch.zeros(3), (X[0], None)], ids=["one", "two"])
def test_rows_that_are_not_those_of_the_inputs(more: Any) -> None:
    shape = tuple((more[0] if isinstance(more, tuple) else more).shape)
    assert refused(ExtremalValueError, TWO, 0, more) == (
        f"a tensor of additional_forward_args must have a row for each of 2 inputs, got shape {shape}; bind what "
        "is the same for all, e.g. lambda x: model(x, value)"
    )


def test_without_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name.partition(".")[0] == "captum":
                raise ModuleNotFoundError(f"No module named {name!r}")

    for name in [name for name in sys.modules if re.match(r"captum\b|extremal\.captum$", name)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Nowhere, *sys.meta_path])
    with pytest.raises(ImportError) as caught:
        importlib.import_module("extremal.captum")
    assert str(caught.value) == (
        "extremal.captum requires captum, got \"No module named 'captum'\"; pip install 'extremal[benchmark]'"
    )
