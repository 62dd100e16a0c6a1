"""The entrance to acceleration: its levels, their checks and what they cost; and oneDNN's convolutions in a network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal import explain
from extremal.masking.solvers import Path
from extremal.networks.acceleration import Acceleration, accelerated, onednn
from extremal.networks.acceleration.onednn import Convolution, is_available
from extremal.networks.network import Network
from support.errors import message_of
from support.gradients import assert_equal_to_rounding, output_and_gradient, patched_modules

needs_onednn = pytest.mark.skipif(not is_available(), reason="no oneDNN in this build of PyTorch")

X = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)


@pytest.fixture
def onednn_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each convolution that oneDNN ran."""
    rows, original = list[int](), Convolution.__call__

    def record(convolve: Convolution, x: Tensor) -> Tensor:
        rows.append(len(x))
        return original(convolve, x)

    monkeypatch.setattr(Convolution, "__call__", record)
    return rows


def convolution_and(*rest: nn.Module) -> nn.Sequential:
    """Return a 1x1 convolution whose outputs are far beyond both bounds, and what follows it."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, 1)
    first.weight.data *= 30
    return nn.Sequential(first, *rest).eval().requires_grad_(False)


def normalised_convolution() -> nn.Sequential:
    """Return a convolution, a batch norm and a rectifier, and a classifier."""
    rest = nn.BatchNorm2d(5), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    return convolution_and(*rest)


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "evaluations", "layers"),
        [
            ("off", 0, []),
            ("portable", 2, ["2"]),  # before and after the batch norm is folded
            pytest.param("onednn", 7, ["0", "2"], marks=needs_onednn),  # 1 for the pair, and 2 x 2 rows
        ],
    )
    def test_what_they_change_and_cost(self, level: Acceleration, evaluations: int, layers: list[str]) -> None:
        model = normalised_convolution()
        names = {module: name for name, module in model.named_modules()}
        with Network(model, accelerate=level).frozen() as run:
            run.accelerate(X)
            assert (run.forwards, run.gradients) == (evaluations, 0)
            assert [names[module] for module in patched_modules(model)] == layers
            assert isinstance(model[1], nn.BatchNorm2d) == (level == "off")
            run.max_batch_size(X)
            assert (run.forwards, run.gradients) == (evaluations + 1, 0)
        assert patched_modules(model) == []
        assert isinstance(model[1], nn.BatchNorm2d)

    @pytest.mark.parametrize("level", ["portable", "onednn", "off"])
    def test_outputs_and_gradients_are_equal_to_rounding(self, level: Acceleration) -> None:
        model = normalised_convolution()
        expected = output_and_gradient(model, X)
        with accelerated(model, model, X[:1], level=level):
            assert_equal_to_rounding(output_and_gradient(model, X), expected)

    def test_an_unknown_one(self) -> None:
        assert message_of(Network, nn.Identity(), accelerate=True) == (
            "accelerate must be one of portable, onednn, off, got True"
        )

    @needs_onednn
    def test_explanations_are_equal_to_rounding(self, onednn_rows: list[int]) -> None:
        model = convolution_and(nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
        solver = Path(steps=12, polish=4, draws=2, search=4)
        results = []
        for level, uses_onednn in (("off", False), ("portable", False), ("onednn", True)):
            onednn_rows.clear()
            results.append(explain(Network(model, accelerate=level), X[:4], 1, areas=(0.2,), solver=solver))
            assert bool(onednn_rows) == uses_onednn
        for result in results[1:]:
            torch.testing.assert_close(result.masks, results[0].masks, atol=1e-3, rtol=0)
            torch.testing.assert_close(result.binary_scores, results[0].binary_scores, atol=1e-3, rtol=0)


@needs_onednn
class TestGradientCheck:
    def test_another_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = torch.ops.aten.hardtanh_backward

        def wrong(gradient: Tensor, *arguments: object, **options: Tensor) -> Tensor:
            return original(gradient * 1.2, *arguments)

        self.check_falls_back(monkeypatch, "hardtanh_backward", wrong)

    @pytest.mark.parametrize("error", [RuntimeError, TypeError, AttributeError, NotImplementedError])
    def test_an_operator_that_raises(self, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
        def raises(*_: object) -> Tensor:
            raise error("not in this version")

        self.check_falls_back(monkeypatch, "convolution_backward", raises)

    @staticmethod
    def check_falls_back(monkeypatch: pytest.MonkeyPatch, name: str, replacement: Callable[..., Tensor]) -> None:
        """Replace an operator that only `onednn` uses here, and check that only the rectifier is accelerated."""

        class Operators:
            aten = type("Aten", (), {"hardtanh_backward": torch.ops.aten.hardtanh_backward})
            mkldnn = torch.ops.mkldnn

        Operators.aten.convolution_backward = torch.ops.aten.convolution_backward
        setattr(Operators.aten, name, replacement)
        fake = type("FakeTorch", (), {"__getattr__": lambda _, attribute: getattr(torch, attribute)})()
        fake.ops = Operators
        monkeypatch.setattr(onednn, "torch", fake)
        model = convolution_and(nn.ReLU6(inplace=True), nn.Conv2d(5, 2, 3))
        expected = output_and_gradient(model, X)
        with accelerated(model, model, X[:1], level="onednn"):
            assert patched_modules(model) == [model[1]]
            assert all(map(torch.equal, output_and_gradient(model, X), expected))

    def test_random_numbers_are_left_as_they_are(self) -> None:
        model = convolution_and(nn.ReLU6(inplace=True))
        numbers = []

        def evaluate(x: Tensor) -> Tensor:
            return model(x) + (torch.rand(()) if len(x) > 1 else 0)  # draws in the check of the gradient

        for level in ("off", "onednn"):
            torch.manual_seed(3)
            with accelerated(model, evaluate, X[:1], level=level):
                numbers.append(torch.rand(()))
        assert numbers[0] == numbers[1]


@needs_onednn
class TestConvolutions:
    @pytest.mark.parametrize(("rows", "calls"), [(1, 0), (2, 2), (8, 2)])
    def test_they_include_the_rectifiers_after_them(self, rows: int, calls: int, onednn_rows: list[int]) -> None:
        rest = nn.Sequential(), nn.ReLU6(), nn.Conv2d(5, 6, 3), nn.Identity(), nn.ReLU6(True)
        model, x = convolution_and(*rest), X[:rows]
        expected = output_and_gradient(model, x)
        with accelerated(model, model, X[:1], level="onednn"):
            onednn_rows.clear()
            actual = output_and_gradient(model, x)
            assert len(patched_modules(model)) == 4
            assert torch.equal(model[2](-X[:1]), -X[:1])  # the convolution clamps already
        assert_equal_to_rounding(actual, expected)
        assert onednn_rows == [rows] * calls

    @pytest.mark.parametrize(
        ("use", "layers", "rows"), [("", 2, 8), ("before", 2, 8), ("changed", 1, 8), ("changed", 1, 1)]
    )
    def test_other_uses_of_the_output_keep_them_apart(
        self, use: str, layers: int, rows: int, onednn_rows: list[int]
    ) -> None:
        torch.manual_seed(0)
        model, x = Skipping(use).requires_grad_(False), X[:rows]
        expected = output_and_gradient(model, x)
        with accelerated(model, model, X[:1], level="onednn"):
            onednn_rows.clear()
            assert len(patched_modules(model)) == layers
            assert torch.equal(model.act(-X), torch.zeros_like(X)) == (use != "")
            assert_equal_to_rounding(output_and_gradient(model, x), expected)
        assert onednn_rows == [8] * (rows == 8)  # oneDNN also runs the 1x1 convolution without the rectifier

    def test_a_layer_to_keep_has_its_output_and_its_gradient(self) -> None:
        model = nn.Sequential(convolution_and(nn.ReLU6()), nn.Conv2d(5, 6, 3), nn.ReLU6()).requires_grad_(False)
        results = []
        for keep in ((), ("0",), ("0.0",)):
            with accelerated(model, model, X, keep, level="onednn"):
                assert len(patched_modules(model)) == 4
                x = X.clone(memory_format=torch.preserve_format).requires_grad_()
                y = model[0](x)
                results.append((y, *torch.autograd.grad(model[1:](y).sum(), (y, x))))
                assert (model[0][0](X).min() < 0) == (keep == ("0.0",))
        x = X.clone().requires_grad_()
        expected = (y := model[0](x), *torch.autograd.grad(model[1:](y).sum(), (y, x)))
        assert_equal_to_rounding(results[1], expected)
        assert_equal_to_rounding(results[2], expected)
        assert not torch.equal(results[0][1], expected[1])  # masked in place, since no layer is kept

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(3, 4, 1, stride=2),
            nn.Conv2d(3, 4, 1, padding=1),
            nn.Conv2d(3, 6, 1, groups=3),
            nn.Conv2d(3, 4, 1, padding="same"),
            nn.Conv2d(3, 4, 1, padding=1, padding_mode="circular"),
        ],
        ids=["3x3", "stride", "padding", "groups", "named", "circular"],
    )
    def test_those_without_a_gain_are_left_alone(self, layer: nn.Module) -> None:
        with accelerated(layer.requires_grad_(False), layer, X, level="onednn"):
            assert patched_modules(layer) == []


class Skipping(nn.Module):
    """Uses the convolution's output, or the rectifier's, a second time."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 3, 1), nn.ReLU6(), nn.Conv2d(3, 2, 3)
        self.conv.weight.data *= 30
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.act(y)
        if self.use == "before":
            return self.last(z + y)
        if self.use == "changed":
            z += x
        return self.last(z)
