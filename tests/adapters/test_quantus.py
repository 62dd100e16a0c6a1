"""Quantus' side: the map inside real metrics, whose values are what the known evidence makes them."""

from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import extremal
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.masking.solvers import Path
from extremal.quantus import explain
from support.toys import Boxes, Switchable, box_mask, texture

QUICK = Path(steps=6, polish=1, rounds=1, draws=1, search=0)
BOX = (slice(2, 7), slice(8, 13))
X = texture(1, 3, 16, 16)
TWO = texture(2, 3, 16, 16, seed=1)
HERE: dict[str, Any] = {"areas": (0.1, 0.3), "solver": QUICK}
QUIET: dict[str, Any] = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


pytestmark = pytest.mark.usefixtures("one_thread")


def model() -> nn.Module:
    """In evaluation mode, as Quantus wants it."""
    return Boxes(X, [BOX]).eval()


def asked(metric: Any, **options: Any) -> Any:
    """What a metric says of our maps, which it asks for itself."""
    given = {"model": model(), "x_batch": X.numpy(), "y_batch": np.array([0]), "device": "cpu", "a_batch": None}
    return metric(**{**given, "explain_func": explain, "explain_func_kwargs": HERE.copy(), **options})


def test_groups_of_classes_are_refused() -> None:
    with pytest.raises(ExtremalTypeError) as error:
        explain(model(), TWO.numpy(), np.array([[0, 1], [1, 0]]), **HERE)
    assert str(error.value) == (
        "targets must be a class for each input, (N,), got shape (2, 2); Quantus has no groups of classes"
    )


class TestMetrics:
    @pytest.mark.parametrize(
        ("shape", "box"),
        [((16, 16), BOX), ((40,), (slice(20, 26),)), ((6, 8, 10), (slice(1, 4), slice(2, 6), slice(3, 8)))],
        ids=["picture", "signal", "volume"],
    )
    def test_the_strongest_places_lie_in_the_box(self, shape: tuple[int, ...], box: tuple[slice, ...]) -> None:
        x, where = texture(2, 2, *shape), box_mask(box, shape).numpy()
        options = {
            "model": Boxes(x, [box]).eval(),
            "x_batch": x[:1].repeat(2, *[1] * (x.ndim - 1)).numpy(),
            "y_batch": np.array([0, 0]),
            "s_batch": np.stack([where, where])[:, None],
            "channel_first": True,
        }
        ranks = asked(quantus.RelevanceRankAccuracy(**QUIET), **options)
        assert len(ranks) == 2
        assert min(ranks) > 0.6 > 3 * float(where.mean())  # by chance it is the share of the box
        assert asked(quantus.PointingGame(**QUIET), **options) == [True, True]
        assert min(asked(quantus.RelevanceMassAccuracy(**QUIET), **options)) > 0.8

    def test_flipping_the_strongest_places_takes_the_whole_answer(self) -> None:
        x, box = X[:, :1], (slice(2, 6), slice(6, 14))  # Quantus wants steps that divide the input: 32 of 256 places
        network = Boxes(x, [box]).eval()
        whole, nothing = float(network(x).softmax(1)[0, 0]), 0.5
        flipping = quantus.PixelFlipping(
            features_in_step=32, perturb_baseline=0.0, return_auc_per_sample=False, **QUIET
        )
        (scores,) = asked(flipping, model=network, x_batch=x.numpy(), softmax=True)
        assert len(scores) == 8
        assert whole > 0.99
        assert scores[0] - nothing < 0.2 * (whole - nothing)  # of the box's 32 places, taken first, few are left
        assert scores[1:] == pytest.approx([nothing] * 7, abs=1e-6)

    def test_a_map_that_is_explained_again_and_again(self) -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        steady = quantus.MaxSensitivity(nr_samples=2, lower_bound=0.02, **QUIET)
        (found,) = asked(steady)
        assert 0.0 < found < 0.5

    def test_in_a_table_of_methods(self) -> None:
        region = box_mask(BOX, (16, 16)).numpy()[None, None]
        table = quantus.evaluate(
            metrics={"rank": quantus.RelevanceRankAccuracy(**QUIET)},
            xai_methods={"extremal": explain},
            model=model(),
            x_batch=X.numpy(),
            y_batch=np.array([0]),
            s_batch=region,
            explain_func_kwargs=HERE,
            agg_func=np.mean,
        )
        assert table["extremal"]["rank"] > 0.6


class TestMaps:
    def test_the_map_is_the_saliency_of_explain(self) -> None:
        options = {"game": "delete", "perturbation": "fade", "score": "logit", "seed": 3, **HERE}
        options["within"] = torch.arange(256).view(16, 16) > 20
        found = explain(model(), X.numpy(), np.array([0]), **options)
        assert (found.shape, found.dtype) == ((1, 1, 16, 16), np.float32)
        wanted = extremal.explain(model(), X, 0, **options).saliency()
        assert np.array_equal(found, wanted.numpy())

    def test_superpixels(self) -> None:
        cells = torch.arange(16)[:, None] // 4 * 4 + torch.arange(16) // 4
        found = explain(model(), X.numpy(), 0, units=cells.numpy(), **HERE)
        wanted = extremal.explain(model(), X, 0, units=cells, **HERE).saliency()
        assert np.array_equal(found, wanted.numpy())

    @pytest.mark.parametrize(
        "inputs",
        [TWO.double().numpy(), TWO.numpy().astype(np.int8), TWO, TWO.numpy().astype(">f4")],
        ids=["double", "whole", "tensor", "big-endian"],
    )
    @pytest.mark.parametrize("targets", [1, np.array([1]), np.array([1, 1]), torch.tensor([1, 1]), [1, 1]], ids=str)
    def test_what_inputs_and_targets_may_be(self, inputs: Any, targets: Any) -> None:
        found = explain(Switchable(), inputs, targets, **HERE)
        assert np.array_equal(found, extremal.explain(Switchable(), TWO, [1, 1], **HERE).saliency().numpy())

    def test_a_model_in_double_precision_gives_single(self) -> None:
        found = explain(model().double(), X.double().numpy(), np.array([0]), **HERE)
        assert found.dtype == np.float32
        wanted = extremal.explain(model().double(), X.double(), 0, **HERE).saliency()
        assert np.array_equal(found, wanted.float().numpy())

    @pytest.mark.parametrize("view", [lambda a: a[..., ::-1], lambda a: np.broadcast_to(a[:, :1], a.shape)])
    def test_arrays_of_any_strides(self, view: Any) -> None:
        x = view(X.numpy())
        assert np.array_equal(explain(model(), x, 0, **HERE), explain(model(), np.array(x, order="C"), 0, **HERE))

    @pytest.mark.parametrize("error", [None, RuntimeError])
    def test_model_and_arrays_are_left_as_they_were(self, error: type[Exception] | None) -> None:
        network, x, y = Switchable().train(), TWO.numpy().copy(), np.array([0, 1])
        network.last.weight.grad = torch.ones_like(network.last.weight)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        calls = []

        def watch(*_: object) -> None:
            calls.append(1)
            if error is not None and len(calls) > 12:
                raise error("in the middle")

        handle = network.last.register_forward_hook(watch)
        if error is None:
            explain(network, x, y, **HERE)
        else:
            with pytest.raises(error, match="in the middle"):
                explain(network, x, y, **HERE)
        handle.remove()
        assert len(calls) > 12
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(module.training for module in network.modules())
        assert all(parameter.requires_grad for parameter in network.parameters())
        assert [p.grad is None for p in network.parameters()] == [
            n != "last.weight" for n, _ in network.named_parameters()
        ]
        assert np.array_equal(x, TWO.numpy())
        assert y.tolist() == [0, 1]

    def test_in_a_callers_inference_mode(self) -> None:
        wanted = explain(model(), X.numpy(), 0, **HERE)
        network = model()
        with torch.inference_mode():
            assert np.array_equal(explain(network, X.clone(), torch.tensor([0]), **HERE), wanted)

    def test_in_a_worker_of_a_data_loader(self) -> None:
        class Maps(Dataset[np.ndarray[Any, Any]]):
            def __len__(self) -> int:
                return 1

            def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
                return explain(model(), X.numpy(), np.array([0]), **HERE)[0]

        (maps,) = DataLoader(Maps(), num_workers=1, timeout=120)
        np.testing.assert_allclose(maps.numpy(), explain(model(), X.numpy(), 0, **HERE), rtol=1e-4)


class TestErrors:
    def refused(self, kind: type[ExtremalError], *args: Any, **options: Any) -> str:
        with pytest.raises(kind) as caught:
            explain(*args, **options)
        return str(caught.value)

    def test_unknown_options(self) -> None:
        known = {"device": "cpu", "method": "extremal", **HERE}
        assert self.refused(ExtremalTypeError, model(), X.numpy(), 0, xai_lib="captum", area=0.1, **known) == (
            "options must be among areas, game, perturbation, solver, score, within, units, alternatives, seed, "
            "effort, got area, xai_lib; leave it out"
        )

    @pytest.mark.parametrize("count", [0, 2, 3])
    def test_targets_of_another_count(self, count: int) -> None:
        told = self.refused(ExtremalValueError, model(), X.numpy(), np.zeros(count, np.int64), **HERE)
        assert told == f"target must be one class, or one for each of 1 inputs, got {count}"

    def test_targets_that_are_no_classes(self) -> None:
        assert self.refused(ExtremalTypeError, model(), X.numpy(), np.array([0.5]), **HERE) == (
            "target must be a class index, a class name or a callable on the output, got float"
        )

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (X.numpy().astype(object), "inputs must be real numbers (N, C, *S), got object; convert with .astype"),
            ([["a"]], "inputs must be real numbers (N, C, *S), got <U1; convert with"),
            (X.numpy().astype(np.complex64), "inputs must be real numbers (N, C, *S), got complex64; convert with"),
            (X.to(torch.complex64), "inputs must be real numbers (N, C, *S), got torch.complex64; convert with"),
            ([[1], [1, 2]], "inputs must be an array, (N, C, *S), got list of unequal rows; make their lengths equal"),
        ],
        ids=["objects", "text", "complex array", "complex tensor", "ragged"],
    )
    def test_inputs_that_are_no_real_numbers(self, inputs: Any, message: str) -> None:
        assert self.refused(ExtremalTypeError, model(), inputs, 0, **HERE).startswith(message)

    def test_targets_of_unequal_rows(self) -> None:
        assert self.refused(ExtremalTypeError, model(), TWO.numpy(), [[0], [0, 1]], **HERE) == (
            "targets must be an array, (N,), got list of unequal rows; make their lengths equal"
        )

    def test_inputs_without_places(self) -> None:
        assert self.refused(ExtremalValueError, model(), np.zeros((2, 5)), 0, **HERE) == (
            "a prepared tensor must be (N, C, *S) with 1 to 3 spatial dimensions, got shape (2, 5); "
            "add a batch axis with x[None] if it is missing"
        )

    def test_no_model(self) -> None:
        assert self.refused(ExtremalTypeError, 3, X.numpy(), 0, **HERE) == (
            "a network must be a torch.nn.Module or a function (B, C, *S) -> (B, classes), got int"
        )
