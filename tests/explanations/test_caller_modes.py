"""The caller's modes of torch change no result, and are as before afterwards, also after an exception."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from extremal.captum import ExtremalPerturbation
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.channels.inversion import invert
from extremal.explanations.channels.visualisation import visualise
from extremal.explanations.explain import explain
from extremal.explanations.explain_copies import stability
from extremal.explanations.judge import judge
from extremal.explanations.preflight.doctor import examine
from extremal.explanations.reduce_region import minimal
from extremal.explanations.smallest_area import smallest_area
from extremal.masking.solvers import Consensus, Path, Penalty
from extremal.networks.layers import layers
from support.toys import Colours, overlap

RNG = torch.Generator().manual_seed(0)
X = 0.2 + 0.1 * torch.rand(1, 3, 16, 16, generator=RNG)
X[:, :, 4:9, 4:9] = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1)  # red on grey
PICTURE = (X[0].clamp(0, 1) * 255).byte().movedim(0, -1).numpy()
MASKS = torch.rand(1, 1, 1, 16, 16, generator=RNG)
SHORT = Consensus(steps=2, least=2, draws=1)


def build() -> Colours:
    model = Colours()
    model.features.bias.data.fill_(-0.3)  # type: ignore[union-attr]
    return model


MODEL = build()
RESULT = explain(MODEL, X, 0, areas=(0.2, 0.4), solver=SHORT)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default device meta": lambda: default_device("meta"),
    "with device meta": lambda: torch.device("meta"),
    "deterministic algorithms": deterministic,
    "other number of threads": lambda: threads(torch.get_num_threads() % 2 + 1),
    "numpy raises": lambda: np.errstate(all="raise"),
}


def modes() -> dict[str, object]:
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "stack": len(torch.overrides._get_current_function_mode_stack()),  # type: ignore[no-untyped-call]
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "numpy": np.geterr(),
    }


def maps_of(result: Any) -> list[Tensor]:
    return [result.saliency(), result.saliency(0.1, "masks"), result.order(), result.binary(0.2), *result.regions()]


def explain_tensor() -> object:
    result = explain(MODEL, X, 0, areas=(0.2, 0.4), solver=SHORT)
    return result, maps_of(result)


ENTRANCES: dict[str, Callable[[], object]] = {
    "explain": explain_tensor,
    "explain a picture": lambda: explain(MODEL, PICTURE, 0, areas=(0.2,), solver=SHORT, perturbation="blur"),
    "the path solver": lambda: explain(MODEL, X, 0, areas=(0.2,), solver=Path(steps=3, polish=2, draws=1)),
    "the penalty": lambda: explain(MODEL, X, 0, areas=(0.2,), solver=Penalty(steps=8), perturbation="fade"),
    "judge": lambda: judge(MODEL, X, MASKS, 0, areas=(0.2,)),
    "channels": lambda: explain_channels(MODEL, X, "act", 0, counts=(1, 2), solver=Path(steps=3, polish=2, draws=1)),
    "smallest area": lambda: smallest_area(MODEL, RESULT),
    "minimal": lambda: minimal(MODEL, RESULT, budget=60),
    "stability": lambda: stability(MODEL, X, RESULT, copies=2),
    "doctor": lambda: examine(MODEL, X, 0),
    "layers": lambda: layers(MODEL, X),
    "invert": lambda: invert(MODEL, "act", X, steps=2),
    "visualise": lambda: visualise(MODEL, "act", (0, 1), size=(3, 16, 16), steps=2),
    "captum": lambda: ExtremalPerturbation(MODEL).attribute(X, 0, areas=(0.2,), solver=SHORT),
}
EXPECTED = {name: call() for name, call in ENTRANCES.items()}


def assert_equal(found: Any, expected: Any, exact: bool) -> None:
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        assert found.device == expected.device
        torch.testing.assert_close(
            found, expected, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-4, equal_nan=True
        )
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        assert_equal(*([v for k, v in values.items() if k != "threads"] for values in (found, expected)), exact)
    elif is_dataclass(expected):
        for part in fields(expected):
            assert_equal(getattr(found, part.name), getattr(expected, part.name), exact)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other, exact)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=0 if exact else 1e-4, nan_ok=True)
    else:
        assert found == expected


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_changes_no_result(mode: str, entrance: str) -> None:
    with MODES[mode]():
        before = modes()
        found = ENTRANCES[entrance]()
        assert modes() == before
    assert_equal(found, EXPECTED[entrance], exact=mode != "other number of threads")


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_restored_after_an_exception(mode: str) -> None:
    def interrupt(step: object) -> None:
        raise KeyboardInterrupt

    model = build()
    with MODES[mode]():
        before = modes()
        with pytest.raises(KeyboardInterrupt):
            explain(model, X, 0, areas=(0.2,), solver=SHORT, on_step=interrupt)
        assert modes() == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_several_modes_at_once() -> None:
    with torch.device("meta"), default_dtype(torch.float64), torch.autocast("cpu"), torch.inference_mode():
        before = modes()
        found = explain_tensor()
        assert modes() == before
    assert_equal(found, EXPECTED["explain"], exact=True)


class Making(Colours):
    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(MODEL.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.zeros(4)


def test_a_network_in_autocast_of_its_own_is_explained() -> None:
    class Halved(Making):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    result = explain(Halved(), X, 0, areas=(0.2,), solver=SHORT)
    assert result.masks.dtype == torch.float32
    alike = explain(MODEL, X, 0, areas=(0.2,), solver=SHORT)
    assert overlap(result.binary(0.2), alike.binary(0.2)) > 0.7


def test_a_network_makes_tensors_on_its_own_device() -> None:
    model = Making()
    with torch.device("meta"):
        found = explain(model, X, 0, areas=(0.2,), solver=SHORT)
    assert_equal(found.masks, explain(MODEL, X, 0, areas=(0.2,), solver=SHORT).masks, exact=True)
