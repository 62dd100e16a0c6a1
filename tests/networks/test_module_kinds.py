"""Modules of every kind: scripted, frozen, exported, quantised, sparse, lazy, compiled, and in half precision."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import judge
from extremal.masking.solvers import Consensus, Path
from extremal.networks.layers import layers
from extremal.networks.network import Network
from support.toys import Square, overlap

X = 0.2 + 0.6 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SHORT = Consensus(steps=6, least=12)


def run(network: Any, x: Tensor = X) -> Explanation:
    return explain(network, x, 1, areas=(0.1,), solver=SHORT, perturbation="fade")


EXPECTED = run(Square())


class WithState(Square):
    def get_extra_state(self) -> object:
        return {"version": 1, "of": [object(), torch.ones(2)]}

    def set_extra_state(self, state: object) -> None:
        pass


class WithSparse(Square):
    def __init__(self, layout: torch.layout) -> None:
        super().__init__()
        self.register_buffer("sparse", torch.eye(3).to_sparse(layout=layout))


def loaded(tmp_path: Any) -> nn.Module:
    torch.jit.script(Square().eval()).save(tmp_path / "scripted.pt")
    module: nn.Module = torch.jit.load(tmp_path / "scripted.pt")
    return module


KINDS: dict[str, Callable[[Any], nn.Module]] = {
    "scripted": lambda _: torch.jit.script(Square()),
    "scripted and loaded": loaded,
    "frozen": lambda path: torch.jit.freeze(loaded(path).eval()),
    "traced": lambda _: torch.jit.trace(Square().eval(), X),
    "a scripted part": lambda _: nn.Sequential(nn.Identity(), torch.jit.script(Square())),
    "exported": lambda _: torch.export.export(Square().eval(), (X,)).module(),
    "with extra state": lambda _: WithState(),
    "a sparse buffer": lambda _: WithSparse(torch.sparse_coo),
    "a compressed buffer": lambda _: WithSparse(torch.sparse_csr),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_module(kind: str, tmp_path: Any) -> None:
    module = KINDS[kind](tmp_path)
    needed = [parameter.requires_grad for parameter in module.parameters()]
    training = [getattr(part, "training", None) for part in module.modules()]
    found = run(module)
    torch.testing.assert_close(found.masks, EXPECTED.masks, atol=1e-4, rtol=0)
    assert [parameter.requires_grad for parameter in module.parameters()] == needed
    assert [getattr(part, "training", None) for part in module.modules()] == training
    assert Network(module).weight_hash() == found.settings["weights"]
    assert isinstance(layers(module, X), tuple)


def test_a_quantised_network_is_told() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    quantised = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})
    with pytest.raises(ExtremalValueError) as error:
        run(quantised)
    assert str(error.value) == (
        "a network's score must depend on its input with a gradient, Sequential's does not; explain the network as it "
        "was before its layers were quantised, or pass solver='search' (--solver search), which needs none"
    )


def test_a_lazy_network_is_told() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ExtremalValueError) as error:
        run(lazy)
    assert str(error.value) == (
        "a network must have its weights, some of Sequential's are created at its first call; call it once on an "
        "input, e.g. model(x)"
    )


def test_replaced_buffers_and_parameters_are_restored() -> None:
    class Counting(Square):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return super().forward(x)

    model = Counting()
    before = model.calls
    run(model)
    assert model.calls is before
    assert float(before) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("input_dtype", [torch.float16, torch.float32])
def test_half_precision(dtype: torch.dtype, input_dtype: torch.dtype) -> None:
    model = Square().to(dtype)
    found = run(model, X.to(input_dtype))
    assert found.masks.dtype == torch.float32
    assert found.settings["dtype"] == str(dtype)
    assert overlap(found.binary(0.1), EXPECTED.binary(0.1)) > 0.8
    assert bool(found.saliency().isfinite().all())
    judged = judge(model, X, found.masks, 1, areas=(0.1,), perturbation="fade")
    rounding = max(1e-3, torch.finfo(dtype).eps)
    torch.testing.assert_close(judged.scores, found.scores, atol=1e-3, rtol=rounding)


def test_double_precision_stays() -> None:
    found = run(Square().double(), X)
    assert found.masks.dtype == torch.float64
    assert overlap(found.binary(0.1).float(), EXPECTED.binary(0.1)) > 0.9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_channels_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    solver = Path(steps=6, polish=4, draws=2)
    expected = explain_channels(model, X, "1", 0, counts=(2,), solver=solver)
    found = explain_channels(model.to(dtype), X, "1", 0, counts=(2,), solver=solver)
    assert found.masks.dtype == torch.float32
    assert found.channels(2) == expected.channels(2)


COMPILED: dict[str, Callable[[], Any]] = {
    "compiled": lambda: torch.compile(Square(), backend=count_compilations),
    "a compiled part": lambda: nn.Sequential(torch.compile(Square(), backend=count_compilations)),
    "compiled in place": lambda: compile_in_place(Square()),
    "compiled twice": lambda: torch.compile(torch.compile(Square(), backend=count_compilations)),
    "a compiled function": lambda: torch.compile(MODEL.forward, backend=count_compilations),
}
MODEL, compilations = Square(), itertools.count()


def count_compilations(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
    next(compilations)
    return graph.forward


def compile_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend=count_compilations)
    return module


@pytest.mark.parametrize("kind", COMPILED)
def test_a_compiled_network_is_run_as_it_was_written(kind: str) -> None:
    model = COMPILED[kind]()
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    before = next(compilations)
    found = run(model)
    assert next(compilations) == before + 1, "nothing was compiled"
    assert torch.equal(found.masks, EXPECTED.masks)
    assert not parts or list(model.modules()) == parts
    if kind != "a compiled function":
        assert all("_orig_mod" not in layer.name for layer in layers(model, X))


def test_a_compiled_network_has_the_same_weights() -> None:
    plain, compiled = Square(), torch.compile(Square())
    assert Network(compiled).weight_hash() == Network(plain).weight_hash()
    inside = nn.Sequential(compiled)
    assert Network(inside).weight_hash() == Network(nn.Sequential(plain)).weight_hash()
