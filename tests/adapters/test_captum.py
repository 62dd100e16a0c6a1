"""captum's side: a real `Attribution` that gives what `explain` gives, and leaves everything as it was."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from extremal import explain, solvers
from extremal.captum import ExtremalPerturbation
from extremal.errors import ExtremalValueError
from extremal.masking.solvers import Path
from support.toys import Boxes, Switchable, box_mask, texture

QUICK = Path(steps=6, polish=1, rounds=1, draws=1, search=0)
BOX, OTHER = (slice(2, 7), slice(8, 13)), (slice(9, 14), slice(1, 6))
X = texture(1, 3, 16, 16)
TWO = texture(2, 3, 16, 16, seed=1)
HERE: dict[str, Any] = {"areas": (0.1, 0.3), "solver": QUICK}
DOCS = re.findall(
    r"```python\n(.*?)```", (File(__file__).parents[2] / "docs" / "ecosystem.md").read_text("utf-8"), re.DOTALL
)


pytestmark = pytest.mark.usefixtures("one_thread")


class Sides(nn.Module):
    """y_0 looks at one box, y_1 at another; no parameters, no buffers, so any device and dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[(..., *box)].square().flatten(1).mean(1) for box in (BOX, OTHER)], 1)


def sides(x: Tensor) -> Tensor:
    """`Sides`, of which nothing tells that it is a module."""
    return Sides()(x)


class Templates(nn.Module):
    """As `Boxes`, but each input comes with its own template, which is destroyed after use."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: Tensor, template: Tensor, box: tuple[slice, ...] = BOX, gain: Tensor | None = None) -> Tensor:
        likeness = (x * template.clone())[(..., *box)].flatten(1).mean(1)
        template.zero_()
        score = self.scale * torch.tanh(2 * likeness) * (1.0 if gain is None else gain)
        return torch.stack([score, torch.zeros_like(score)], 1)


def share(maps: Tensor, box: tuple[slice, ...], row: int = 0) -> float:
    """How much of a map lies in a box."""
    return float(maps[row][(..., *box)].sum() / maps[row].sum())


class TestMaps:
    def test_it_is_one_of_captums_methods(self) -> None:
        method = ExtremalPerturbation(Sides())
        assert isinstance(method, Attribution)
        assert method.get_name() == "Extremal Perturbation"
        assert method.has_convergence_delta() is False
        assert method.multiplies_by_inputs is False

    def test_the_map_is_the_saliency_of_explain_and_lies_in_the_box(self) -> None:
        model, x = Boxes(X, [BOX]), X.repeat(2, 1, 1, 1) * torch.tensor([1.0, 0.8]).view(2, 1, 1, 1)
        method, wanted = ExtremalPerturbation(model), explain(model, x, 0, seed=3, game="dual", **HERE)
        maps = method.attribute(x, 0, seed=3, game="dual", **HERE)
        assert torch.equal(maps, wanted.saliency().expand(2, 3, 16, 16))
        assert maps.is_contiguous()  # values of its own, which the caller may change
        assert [share(maps, BOX, row) > 0.95 for row in range(2)] == [True, True]
        assert method.explain(x, 0, seed=3, game="dual", **HERE) == wanted

    def test_every_option_is_handed_on(self) -> None:
        options = {"perturbation": "fade", "score": "logit", "game": "delete", "seed": 5, **HERE}
        options["within"] = torch.arange(256).view(16, 16) > 20
        found = ExtremalPerturbation(Boxes(X, [BOX])).explain(X, 0, **options)
        assert found == explain(Boxes(X, [BOX]), X, 0, **options)
        assert {"score": "logit", "game": "delete", "seed": 5}.items() <= found.settings.items()

    def test_units_are_what_captum_calls_a_feature_mask(self) -> None:
        cells = torch.arange(16)[:, None] // 4 * 4 + torch.arange(16) // 4
        method = ExtremalPerturbation(Boxes(X, [(slice(4, 8), slice(8, 12))]))
        (cut,) = method.explain(X, 0, units=cells, **HERE).binary(0.1)
        assert torch.equal(cut[0], (cells == 6).float())
        maps = method.attribute(X, 0, units=cells, **HERE)
        assert int(cells.flatten()[maps[0, 0].argmax()]) == 6

    def test_a_tuple_is_answered_by_a_tuple(self) -> None:
        method = ExtremalPerturbation(Sides())
        (inside,) = method.attribute((X,), 0, **HERE)
        assert torch.equal(inside, method.attribute(X, 0, **HERE))

    @pytest.mark.parametrize("call", [Sides(), Sides().forward, sides], ids=["module", "bound", "function"])
    def test_what_has_no_weights_follows_the_inputs(self, call: Any) -> None:
        x = X.double()
        found = ExtremalPerturbation(call).explain(x, 0, **HERE)
        assert found.inputs.dtype == found.masks.dtype == torch.float64
        maps = ExtremalPerturbation(call).attribute(x, 0, **HERE)
        assert maps.dtype == torch.float64
        assert torch.equal(maps, found.saliency().expand_as(x))
        assert torch.equal(maps, ExtremalPerturbation(Sides()).attribute(x, 0, **HERE))
        assert found.settings["network"] == getattr(call, "__name__", "Sides")

    def test_a_model_of_another_dtype_keeps_its_own_and_the_map_takes_the_inputs(self) -> None:
        model, x = Boxes(X, [BOX]), X.double()
        assert ExtremalPerturbation(model).explain(x, 0, **HERE).masks.dtype == torch.float32
        maps = ExtremalPerturbation(model).attribute(x, 0, **HERE)
        assert torch.equal(maps, ExtremalPerturbation(model).attribute(X, 0, **HERE).double())

    def test_signals_and_volumes(self) -> None:
        for shape, box in (((40,), (slice(20, 28),)), ((6, 8, 10), (slice(1, 4), slice(2, 6), slice(3, 8)))):
            x = texture(1, 2, *shape)
            maps = ExtremalPerturbation(Boxes(x, [box])).attribute(x, 0, **HERE)
            assert maps.shape == x.shape
            assert share(maps, box) > 3 * float(box_mask(box, shape).mean())


class TestTargets:
    @pytest.mark.parametrize("target", [1, torch.tensor(1), torch.tensor([1]), [1, 1], torch.tensor([1, 1])], ids=str)
    def test_a_class_for_all_inputs_or_one_for_each(self, target: Any) -> None:
        found = ExtremalPerturbation(Sides()).explain(TWO, target, **HERE)
        assert found.target == (1, 1)
        assert torch.equal(found.masks, explain(Sides(), TWO, 1, **HERE).masks)

    @pytest.mark.parametrize("target", [[0, 1], torch.tensor([0, 1])], ids=str)
    def test_each_input_has_its_own(self, target: Any) -> None:
        maps = ExtremalPerturbation(Sides()).attribute(TWO, target, **HERE)
        assert (share(maps, BOX, 0) > 0.9, share(maps, OTHER, 1) > 0.9) == (True, True)

    @pytest.mark.parametrize("single", [lambda y: y[:, 1], lambda y: y[:, 1:]], ids=["(B,)", "(B, 1)"])
    def test_none_where_there_is_one_output(self, single: Any) -> None:
        found = ExtremalPerturbation(lambda x: single(Sides()(x))).explain(TWO, **HERE)
        assert torch.equal(found.masks, explain(Sides(), TWO, 1, score="logit", **HERE).masks)

    def test_a_tuple_is_the_place_of_one_value_and_no_mean(self) -> None:
        def maps_of_classes(x: Tensor) -> Tensor:  # (B, 2 classes, 1, 2 places)
            y = Sides()(x)
            return torch.stack([torch.zeros_like(y), y], 1).unsqueeze(2)

        method, wanted = ExtremalPerturbation(maps_of_classes), explain(Sides(), TWO, 1, score="logit", **HERE)
        found = method.explain(TWO, (1, 0, 1), **HERE)
        assert found.target_names == ("output[:, 1, 0, 1]",) * 2
        assert torch.equal(found.masks, wanted.masks)
        of_numpy = method.explain(TWO, (np.int64(1), np.int32(0), torch.tensor(1)), **HERE)  # type: ignore[arg-type]
        assert torch.equal(of_numpy.masks, wanted.masks)
        each = method.attribute(TWO, [(1, 0, 0), (1, 0, 1)], **HERE)
        assert (share(each, BOX, 0) > 0.9, share(each, OTHER, 1) > 0.9) == (True, True)


class TestFurtherArguments:
    @pytest.mark.parametrize("options", [(), (OTHER,), (OTHER, torch.tensor(0.5))], ids=["one", "two", "scalar"])
    def test_rows_go_with_their_inputs(self, options: tuple[Any, ...]) -> None:
        model, templates = Templates(), TWO.clone().requires_grad_()
        arguments = (templates, *options) if options else templates
        box = options[0] if options else BOX
        maps = ExtremalPerturbation(model).attribute(TWO, 0, arguments, **HERE)
        for n in range(2):
            bound = ExtremalPerturbation(lambda x, n=n: model(x, TWO[n : n + 1].repeat(len(x), 1, 1, 1), *options))
            torch.testing.assert_close(maps[n : n + 1], bound.attribute(TWO[n : n + 1], 0, **HERE))
            assert share(maps, box, n) > 0.95
        assert torch.equal(templates, TWO)  # although the network writes over what it gets
        assert templates.grad is None
        assert model.scale.grad is None
        assert model.scale.requires_grad

    def test_rows_keep_their_targets(self) -> None:
        def chosen(x: Tensor, sides: Tensor) -> Tensor:
            return torch.gather(Sides()(x), 1, torch.stack([sides, 1 - sides], 1))

        found = ExtremalPerturbation(chosen).explain(TWO, [0, 1], torch.tensor([1, 1]), **HERE)
        assert found.target == (0, 1)
        maps = found.saliency()
        assert (share(maps, OTHER, 0) > 0.9, share(maps, BOX, 1) > 0.9) == (True, True)
        alone = ExtremalPerturbation(chosen).explain(TWO[:1], 0, torch.tensor([1]), **HERE)
        count = alone.settings["evaluations"]["gradients"]
        assert count > 0
        assert found.settings["evaluations"]["gradients"] == 2 * count

    def test_an_error_tells_of_which_input(self) -> None:
        x = TWO.clone()
        x[1] = 0.0
        with pytest.raises(ExtremalValueError) as caught:
            ExtremalPerturbation(Templates()).attribute(x, 0, TWO, **HERE)
        assert caught.value.__notes__ == [
            "This was input 1: with further arguments each is explained by itself, as input 0."
        ]


class TestInsideCaptum:
    def test_noise_tunnel(self) -> None:
        torch.manual_seed(0)
        tunnel, options = NoiseTunnel(ExtremalPerturbation(Templates())), {"target": 0, **HERE}
        maps = tunnel.attribute(
            TWO, nt_type="smoothgrad", nt_samples=2, stdevs=0.05, additional_forward_args=TWO, **options
        )
        assert maps.shape == TWO.shape
        assert [share(maps, BOX, row) > 0.9 for row in range(2)] == [True, True]
        still = tunnel.attribute(X, nt_samples=2, stdevs=0.0, additional_forward_args=X, **options)
        torch.testing.assert_close(still, ExtremalPerturbation(Templates()).attribute(X, 0, X, **HERE))

    def test_sensitivity(self) -> None:
        method = ExtremalPerturbation(Boxes(X, [BOX]))

        def worst(radius: float) -> float:
            torch.manual_seed(0)
            found = sensitivity_max(
                method.attribute, X, perturb_radius=radius, n_perturb_samples=2, target=torch.tensor([0]), **HERE
            )
            return float(found)

        assert worst(0.0) == 0.0
        assert 0.0 < worst(0.02) < 0.5

    def test_infidelity_prefers_the_map_to_its_opposite(self) -> None:
        model = Boxes(X, [BOX])
        maps = ExtremalPerturbation(model).attribute(X, 0, **HERE)

        def less(x: Tensor) -> tuple[Tensor, Tensor]:
            kept = (torch.rand(len(x), 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.2).float()
            return x - x * kept, x * kept

        found = [
            float(infidelity(model, less, X, values * X, target=0, n_perturb_samples=40, normalize=True))
            for values in (maps, torch.ones_like(maps), maps.max() - maps)
        ]
        assert found[0] < 0.5 * min(found[1:])

    def test_pictures(self) -> None:
        maps = ExtremalPerturbation(Boxes(X, [BOX])).attribute(X, 0, **HERE)
        heat, picture = maps[0].movedim(0, -1).numpy(), X[0].movedim(0, -1).clamp(0, 1).numpy()
        figure, axes = visualization.visualize_image_attr(heat, picture, "heat_map", "positive", use_pyplot=False)
        shown = torch.from_numpy(axes.images[0].get_array().data)
        assert share(shown[None], BOX) > 0.9
        plt.close(figure)


def everything(model: nn.Module) -> tuple[object, ...]:
    """All of a module that a run could disturb."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [module.training for module in model.modules()],
        [(id(t), t.requires_grad, t.detach().numpy().tobytes()) for t in tensors],
        [None if t.grad is None else t.grad.tolist() for t in tensors],
        [list(module._forward_hooks) for module in model.modules()],
    )


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = everything(model), torch.random.get_rng_state().tolist()
    yield
    assert (everything(model), torch.random.get_rng_state().tolist()) == before


def disordered() -> Switchable:
    model = Switchable().train()
    model.norm.eval()
    model.last.weight.grad = torch.ones_like(model.last.weight)
    return model


class TestNothingIsTouched:
    def test_a_module_and_the_inputs_after_a_run(self) -> None:
        model, x = disordered(), TWO.clone().requires_grad_()
        with unchanged(model):
            maps = ExtremalPerturbation(model).attribute(x, 1, **HERE)
        assert torch.equal(x, TWO)
        assert x.grad is None
        assert x.requires_grad
        assert not maps.requires_grad

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("rows", [None, torch.zeros(2)], ids=["plain", "rows"])
    def test_a_module_and_the_inputs_after_an_exception(self, error: type[BaseException], rows: Tensor | None) -> None:
        class Failing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.left = disordered(), 12

            def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
                self.left -= 1
                if self.left < 0:
                    self.train()
                    raise error("in the middle")
                return self.inner(x)

        model, x = Failing(), TWO.clone().requires_grad_()
        with unchanged(model), pytest.raises(error, match="in the middle"):
            ExtremalPerturbation(model).attribute(x, 1, rows, **HERE)
        assert torch.equal(x, TWO)
        assert x.grad is None

    def test_a_module_inside_a_callable_gets_no_gradient(self) -> None:
        model, x = Switchable().eval(), TWO.clone().requires_grad_()
        model.last.weight.grad = torch.ones_like(model.last.weight)
        before = everything(model)
        ExtremalPerturbation(model.forward).attribute(x, 1, **HERE)
        assert int(model.calls) > 0  # it counts in place: what a callable does to itself is not taken back
        model.calls.zero_()
        assert everything(model) == before
        assert x.grad is None

    def test_a_callable_with_weights_gives_what_its_module_gives(self) -> None:
        model = Switchable().eval()
        torch.testing.assert_close(
            ExtremalPerturbation(model.forward).attribute(TWO, 1, **HERE),
            ExtremalPerturbation(model).attribute(TWO, 1, **HERE),
            atol=1e-3,
            rtol=1e-3,
        )


class TestElsewhere:
    @pytest.mark.parametrize("call", [Boxes(X, [BOX]), sides], ids=["module", "callable"])
    def test_in_a_callers_inference_mode_and_without_gradients(self, call: Any) -> None:
        wanted = ExtremalPerturbation(call).attribute(X, 0, **HERE)
        with torch.inference_mode():
            made_here = X.clone()
            assert torch.equal(ExtremalPerturbation(call).attribute(made_here, 0, **HERE), wanted)
            assert torch.is_inference_mode_enabled()
        with torch.no_grad():
            assert torch.equal(ExtremalPerturbation(call).attribute(X, 0, **HERE), wanted)

    def test_rows_made_in_inference_mode(self) -> None:
        wanted = ExtremalPerturbation(Templates()).attribute(TWO, 0, (TWO, BOX, torch.tensor(2.0)), **HERE)
        model = Templates()
        with torch.inference_mode():
            rows, gain = TWO.clone(), torch.tensor(2.0)
            assert torch.equal(ExtremalPerturbation(model).attribute(TWO, 0, (rows, BOX, gain), **HERE), wanted)

    def test_in_a_worker_of_a_data_loader(self) -> None:
        class Maps(Dataset[Tensor]):
            def __len__(self) -> int:
                return 2

            def __getitem__(self, index: int) -> Tensor:
                return ExtremalPerturbation(Sides()).attribute(TWO[index : index + 1], index, **HERE)[0]

        (maps,) = DataLoader(Maps(), batch_size=2, num_workers=1, timeout=120)
        torch.testing.assert_close(maps, ExtremalPerturbation(Sides()).attribute(TWO, [0, 1], **HERE))


def test_the_package_imports_neither_captum_nor_quantus() -> None:
    lines = """
import sys, extremal, extremal.quantus
extremal.explain, extremal.zoo, extremal.class_channels
assert not {"captum", "quantus"} & sys.modules.keys()
import extremal.captum
assert sys.modules["captum"] is not extremal.captum
"""
    subprocess.run([sys.executable, "-c", lines], check=True)


@pytest.mark.parametrize("text", DOCS, ids=["captum", "quantus"])
def test_the_examples_of_the_page(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(solvers.SOLVERS, "consensus", QUICK)
    names: dict[str, Any] = {}
    exec(compile(text, "ecosystem.md", "exec"), names)
    share_inside = float(re.findall(r"0\.\d+|1\.0", capsys.readouterr().out)[0])
    assert share_inside > 0.9
    if "figure" in names:
        plt.close(names["figure"])
