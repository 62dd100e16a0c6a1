"""Insertion, deletion, ROAD and area curves against naive loops and against Quantus."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal.benchmark import metrics
from extremal.benchmark.metrics import area_curve, impute, insertion_curve, rank_map, road_curve
from extremal.networks.network import Network
from support.errors import message_of


class Grey(nn.Module):
    """A network of grey images: their channel is repeated three times."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.float().expand(-1, 3, -1, -1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
    ).double()


def score_function(model, target):
    return lambda inputs: model(inputs).softmax(1)[:, target]


def test_insertion_and_deletion_are_naive_loops(model):
    x, blur, map_ = (torch.randn(1, c, 6, 5, dtype=torch.float64) for c in (3, 3, 1))
    curve = metrics.insertion_curve(score_function(model, 2), blur, x, map_, steps=7)
    order = sorted(range(30), key=lambda place: -float(map_.flatten()[place]))
    expected = []
    for step in range(8):
        mixed = blur.clone()
        for place in order[: round(30 * step / 7)]:
            mixed[0, :, place // 5, place % 5] = x[0, :, place // 5, place % 5]
        with torch.no_grad():
            expected.append(float(model(mixed).softmax(1)[0, 2]))
    np.testing.assert_allclose(curve.scores.numpy(), expected)
    shares = [round(30 * step / 7) / 30 for step in range(8)]
    assert curve.area == pytest.approx(np.trapezoid(expected, shares))
    back = metrics.insertion_curve(score_function(model, 2), x, blur, -map_, steps=7)
    assert back.scores[-1] == pytest.approx(float(curve.scores[0]))
    assert back.scores[0] == pytest.approx(float(curve.scores[-1]))


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_curves_equal_those_of_quantus(kind):
    """The embedded network on a grey photograph, which has one value a place as Quantus counts them; three maps."""
    import quantus
    import skimage.data

    from extremal import zoo
    from extremal.networks.inputs import prepare

    net = zoo.load("embedded")
    x = prepare(net, skimage.data.camera())[:, :1]
    grey = Network(Grey(net.model))
    other = torch.zeros_like(x) if kind == "deletion" else x
    start = x if kind == "deletion" else torch.nn.functional.avg_pool2d(x, 31, 1, 15)
    target, steps = net.index("tripod"), 14
    places = x[0, 0].numel()

    def replaced(arr, indices, **_):
        changed = arr.copy()
        flat = other.flatten(1).numpy()
        np.put_along_axis(changed, indices, np.take_along_axis(flat, indices, 1), 1)
        return changed

    quiet = {"disable_warnings": True, "display_progressbar": False, "abs": False, "normalise": False}
    flipping = quantus.PixelFlipping(
        features_in_step=places // steps, perturb_func=replaced, return_auc_per_sample=False, **quiet
    )
    for seed in range(3):
        map_ = torch.rand(1, 1, *x.shape[2:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert len(map_.unique()) == places
        with grey.frozen() as run:
            theirs = flipping(
                model=grey.model,
                x_batch=start.numpy(),
                y_batch=np.array([target]),
                a_batch=map_.numpy(),
                softmax=True,
                device="cpu",
            )[0]
            ours = metrics.insertion_curve(lambda i, run=run: run(i).softmax(1)[:, target], start, other, map_, steps)
        np.testing.assert_allclose(ours.scores.numpy()[1:], np.asarray(theirs), atol=1e-4)
        area = np.trapezoid([float(ours.scores[0]), *theirs], dx=1 / steps)
        assert ours.area == pytest.approx(area, abs=1e-3)


def test_imputation_equals_that_of_quantus_and_solves_the_system():
    from quantus.functions.perturb_func import noisy_linear_imputation

    x = torch.rand(1, 3, 9, 11, dtype=torch.float64)
    removed = torch.rand(9, 11, generator=torch.Generator().manual_seed(4)) < 0.45
    imputed = metrics.impute(x, removed, noise=0.0)[0]
    theirs = noisy_linear_imputation(x[0].numpy(), np.flatnonzero(removed.numpy()), noise=0.0)
    np.testing.assert_allclose(imputed.numpy(), np.asarray(theirs).reshape(3, 9, 11), atol=1e-9)
    torch.testing.assert_close(imputed[:, ~removed], x[0][:, ~removed])
    for r, c in removed.nonzero().tolist():  # each place is the weighted mean of its neighbours
        total, weight = torch.zeros(3, dtype=torch.float64), 0.0
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                if (dr or dc) and 0 <= r + dr < 9 and 0 <= c + dc < 11:
                    term = 1 / 6 if not (dr and dc) else 1 / 12
                    total, weight = total + term * imputed[:, r + dr, c + dc], weight + term
        torch.testing.assert_close(imputed[:, r, c], total / weight)
    noisy = metrics.impute(x, removed)[0]
    assert 0.003 < float((noisy - imputed)[:, removed].std()) < 0.03
    assert torch.equal(noisy, metrics.impute(x, removed)[0])
    assert torch.equal(metrics.impute(x, torch.zeros_like(removed)), x)


def test_the_area_curve_keeps_exactly_the_area(model):
    evaluated = []

    def scores(inputs):
        evaluated.extend(inputs)
        return inputs.flatten(1).sum(1)

    x, map_ = torch.ones(1, 3, 10, 10), torch.rand(1, 1, 10, 10)
    curve = metrics.area_curve(scores, x, torch.zeros_like(x), map_, (0.05, 0.2))
    assert curve.scores.tolist() == [15.0, 60.0]
    assert [int(x[0].sum()) for x in evaluated] == [5, 20]
    assert curve.area == pytest.approx((15 + 60) / 2)


def test_road_replaces_the_highest_places():
    x, map_ = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    x[..., 2:4, 2:4] = 1.0
    map_[..., 2:4, 2:4] = 1.0
    curve = metrics.road_curve(lambda inputs: inputs.amax((1, 2, 3)), x, map_, (0.02, 0.04))
    assert curve.scores[0] == 1.0  # half of the square is still there
    assert abs(float(curve.scores[1])) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, m: impute(x.expand(2, 3, 8, 8), m[0, 0] > 1),
            "an input must be one tensor (1, C, 8, 8), got shape (2",
        ),
        (lambda x, m: impute(x, m[0, 0, 1:] > 1), "an input must be one tensor (1, C, 7, 8), got shape (1, 3, 8, 8)"),
        (lambda x, m: impute(x, m[0, 0] > 1, noise=float("nan")), "noise must be at least 0 and finite, got nan; e.g."),
        (lambda x, m: road_curve(total, x, m, seed="a"), "seed must be a whole number, got 'a'; e.g. 0"),
        (lambda x, m: impute(x, m[0, 0]), "removed places must be a bool tensor (H, W), got torch.float32 (8, 8)"),
        (lambda x, m: area_curve(total, x, x, m, (0.25, 1.5)), "areas must be fractions of places in [0, 1], at least"),
        (
            lambda x, m: area_curve(total, x, x, m, ()),
            "areas must be fractions of places in [0, 1], at least one, got ()",
        ),
        (
            lambda x, m: area_curve(total, x, x[..., 1:], m, (0.5,)),
            "an input must be one tensor (1, C, 8, 8), got shape",
        ),
        (lambda x, m: road_curve(total, x, m, (2,)), "fractions must be fractions of places in [0, 1], at least one"),
        (lambda x, m: road_curve(total, x, m, (0.1, 0.5, 0.3)), "fractions must increase, got (0.1, 0.5, 0.3); sort"),
        (lambda x, m: area_curve(total, x, x, m, (0.1, 0.1)), "areas must increase, got (0.1, 0.1); sort them, each"),
        (lambda x, m: area_curve(total, x, x, m, (0.1,)).area, "a curve must have at least two fractions to have an"),
        (lambda x, m: area_curve(total, x, x[:, :1], m, (0.1,)), "inputs must have one shape to be exchanged, got (1,"),
        (lambda x, m: insertion_curve(total, x, x[:, :1], m), "inputs must have one shape to be exchanged, got (1, 3,"),
        (
            lambda x, m: insertion_curve(lambda z: total(z).tolist(), x, x, m),
            "scores must return a tensor (B,), got",
        ),
        (
            lambda x, m: insertion_curve(lambda z: total(z).sum(), x, x, m, 4),
            "scores must return one score for each in",
        ),
        (lambda x, m: road_curve(lambda z: total(z)[:, None], x, m), "scores must return one score for each input, (B"),
        (lambda x, m: insertion_curve(total, x, x[..., 1:], m), "an input must be one tensor (1, C, 8, 8), got shape"),
        (lambda x, m: insertion_curve(total, x, x, m, 1.5), "steps must be a whole number, got 1.5; e.g. 28"),
        (lambda x, m: rank_map(m.expand(2, 1, 8, 8)), "a map must be of one input, (1, 1, *S), got shape (2, 1, 8, 8)"),
        (lambda x, m: rank_map(m[:0]), "maps must be (N, 1, *S), got shape (0, 1, 8, 8)"),
    ],
)
def test_wrong_curves(call: Callable[[Tensor, Tensor], object], message: str) -> None:
    assert message_of(call, torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)).startswith(message)


def total(x: Tensor) -> Tensor:
    return x.sum((1, 2, 3))
