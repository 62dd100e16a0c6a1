"""Measures of maps against naive loops and against published implementations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from extremal.benchmark import metrics
from extremal.benchmark.metrics.estimate import mean, mean_over_classes, mean_paired_difference
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network


def drawn(rng, ties=False):
    """A map and a region of random size, sometimes with ties, sometimes empty."""
    height, width = rng.integers(2, 24, 2)
    values = rng.normal(size=(height, width))
    if ties:
        values = np.round(values)
    region = rng.random((height, width)) < rng.choice([0.02, 0.1, 0.5])
    return values, region


def naive_hit(values, region, down, across):
    """Place by place: of all maxima, the share from which some place of the region is within the ellipse."""
    if not region.any():
        return math.nan
    found = []
    for r, c in np.argwhere(values == values.max()):
        near = False
        for rr, cc in np.argwhere(region):
            if down == across == 0:
                near |= (r, c) == (rr, cc)
            else:
                near |= ((r - rr) / max(down, 0.4)) ** 2 + ((c - cc) / max(across, 0.4)) ** 2 <= 1
        found.append(near)
    return float(np.mean(found))


def naive_energy(values, region):
    if not region.any():
        return math.nan
    inside = total = 0.0
    for place in np.ndindex(values.shape):
        positive = max(0.0, float(values[place]))
        total += positive
        inside += positive if region[place] else 0.0
    return inside / total if total > 0 else 0.0


def test_pointing_and_energy_agree_with_naive_loops_on_a_thousand_random_maps():
    rng, judged = np.random.default_rng(0), 0
    for index in range(1000):
        values, region = drawn(rng, ties=index % 3 == 0)
        radii = [(0.0, 0.0), (1.0, 1.0), (2.5, 2.5), (15.0, 15.0), (1.5, 3.0)][index % 5]
        maps, regions = torch.from_numpy(values)[None, None], torch.from_numpy(region)[None]
        tolerance = radii[0] if radii[0] == radii[1] else torch.tensor([radii])
        hit = float(metrics.pointing_game(maps, regions, tolerance))
        energy = float(metrics.energy(maps, regions))
        np.testing.assert_allclose(hit, naive_hit(values, region, *radii), rtol=1e-12)
        np.testing.assert_allclose(energy, naive_energy(values, region), rtol=1e-9)
        judged += not math.isnan(hit)
    assert judged > 800


def test_of_equal_maxima_the_share_that_hits_counts():
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, 0] = True
    values = torch.zeros(1, 1, 4, 4)
    values[0, 0, 0, 1] = values[0, 0, 3, 3] = 2.0
    assert float(metrics.pointing_game(values, region, 0.0)) == 0.5
    assert float(metrics.pointing_game(torch.zeros(1, 1, 4, 4), region, 0.0)) == 0.25  # a constant map points anywhere
    assert float(metrics.pointing_game(torch.zeros(1, 1, 224, 224), torch.ones(1, 224, 224, dtype=torch.bool))) == 1.0


@given(st.integers(0, 10**6), st.floats(0.1, 5))
@settings(max_examples=40, deadline=None)
def test_pointing_precision_and_overlap_depend_on_the_order_only(seed, power):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 1, 7, 9, generator=generator, dtype=torch.float64)
    regions = torch.rand(2, 7, 9, generator=generator) < 0.3
    for measure in (metrics.pointing_game, metrics.iou, metrics.average_precision):
        torch.testing.assert_close(measure(maps, regions), measure(maps**power + 3, regions), equal_nan=True)


def test_the_region_itself_is_the_best_map():
    regions = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.2
    maps = regions[:, None].float()
    for measure in (metrics.pointing_game, metrics.iou, metrics.average_precision, metrics.energy):
        assert measure(maps, regions).tolist() == [1.0, 1.0, 1.0]
    nothing = torch.zeros_like(maps)
    assert metrics.energy(nothing, regions).tolist() == [0.0, 0.0, 0.0]
    for measure in (metrics.pointing_game, metrics.iou, metrics.average_precision, metrics.energy):
        assert bool(measure(maps, torch.zeros_like(regions)).isnan().all())  # never a hit


def test_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(1)
    for index in range(60):
        values, region = drawn(rng, ties=index % 2 == 0)
        if region.any():
            ours = metrics.average_precision(torch.from_numpy(values)[None, None], torch.from_numpy(region)[None])
            assert float(ours) == pytest.approx(average_precision_score(region.ravel(), values.ravel()), rel=1e-9)


def test_overlap_is_of_as_many_places_as_the_region_has():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    region = torch.zeros(1, 3, 4, dtype=torch.bool)
    region[0, 2, 1:] = True  # the three highest
    assert float(metrics.iou(maps, region)) == 1.0
    region[0, 0, 0] = True  # and the lowest: the map's four highest share three with it
    assert float(metrics.iou(maps, region)) == pytest.approx(3 / 5)


def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    for index in range(30):
        a, _ = drawn(rng, ties=index % 2 == 0)
        b = np.round(a + rng.normal(size=a.shape), index % 3)
        ours = metrics.rank_correlation(*(torch.from_numpy(values)[None, None] for values in (a, b)))
        assert float(ours) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    constant = torch.ones(1, 1, 4, 4)
    assert float(metrics.rank_correlation(constant, torch.rand(1, 1, 4, 4))) == 0.0


def test_agreement_is_over_all_pairs():
    maps = [torch.rand(2, 1, 10, 10, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    alike, overlap = metrics.seed_agreement(maps, area=0.1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    torch.testing.assert_close(alike, sum(metrics.rank_correlation(maps[i], maps[j]) for i, j in pairs) / 3)
    tops = [[set(one.flatten().topk(10).indices.tolist()) for one in seed] for seed in maps]
    for n in range(2):
        wanted = np.mean([len(tops[i][n] & tops[j][n]) / len(tops[i][n] | tops[j][n]) for i, j in pairs])
        assert float(overlap[n]) == pytest.approx(wanted)
    same, whole = metrics.seed_agreement([maps[0], maps[0]])
    assert same.tolist() == pytest.approx([1.0, 1.0])
    assert whole.tolist() == [1.0, 1.0]


class Grey(nn.Module):
    """A network that sees one channel three times."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.float().expand(-1, 3, -1, -1))


class TestMosaics:
    def test_cells_lie_in_raster_order(self):
        inputs = torch.rand(9, 3, 6, 8)
        whole = metrics.mosaic(inputs, 3)
        assert whole.shape == (1, 3, 18, 24)
        for cell in range(9):
            inside = metrics.cell_mask(cell, 3, (18, 24))
            torch.testing.assert_close(whole[0][:, inside].view(3, 6, 8), inputs[cell])
        assert torch.equal(
            sum(metrics.cell_mask(cell, 3, (18, 24)).int() for cell in range(9)), torch.ones(18, 24).int()
        )

    def test_cells_can_be_resized(self):
        whole = metrics.mosaic(torch.ones(4, 3, 50, 70) * torch.arange(4.0).view(4, 1, 1, 1), 2, size=(20, 24))
        assert whole.shape == (1, 3, 20, 24)
        torch.testing.assert_close(whole[0, 0, ::19, ::23], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))

    def test_messages(self):
        with pytest.raises(ExtremalValueError, match="a mosaic of 2 × 2 must have 4 inputs"):
            metrics.mosaic(torch.rand(3, 3, 4, 4), 2)
        with pytest.raises(ExtremalValueError, match="a mosaic's size must be a multiple of 3"):
            metrics.mosaic(torch.rand(9, 3, 4, 4), 3, size=(10, 9))
        with pytest.raises(ExtremalValueError, match=r"a cell must lie in 0..3 of a grid of 2 × 2, got 4"):
            metrics.cell_mask(4, 2, (8, 8))


class TestRemoval:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
        ).double()

    def scores(self, model, target):
        return lambda inputs: model(inputs).softmax(1)[:, target]

    def test_insertion_and_deletion_are_naive_loops(self, model):
        x, blur, map_ = (torch.randn(1, c, 6, 5, dtype=torch.float64) for c in (3, 3, 1))
        found = metrics.insertion_curve(self.scores(model, 2), blur, x, map_, steps=7)
        order = sorted(range(30), key=lambda place: -float(map_.flatten()[place]))
        expected = []
        for step in range(8):
            mixed = blur.clone()
            for place in order[: round(30 * step / 7)]:
                mixed[0, :, place // 5, place % 5] = x[0, :, place // 5, place % 5]
            with torch.no_grad():
                expected.append(float(model(mixed).softmax(1)[0, 2]))
        np.testing.assert_allclose(found.scores.numpy(), expected)
        shares = [round(30 * step / 7) / 30 for step in range(8)]
        assert found.area == pytest.approx(np.trapezoid(expected, shares))
        back = metrics.insertion_curve(self.scores(model, 2), x, blur, -map_, steps=7)
        assert back.scores[-1] == pytest.approx(float(found.scores[0]))
        assert back.scores[0] == pytest.approx(float(found.scores[-1]))

    @pytest.mark.parametrize("kind", ["deletion", "insertion"])
    def test_numbers_are_those_of_quantus(self, kind):
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
                ours = metrics.insertion_curve(
                    lambda i, run=run: run(i).softmax(1)[:, target], start, other, map_, steps
                )
            np.testing.assert_allclose(ours.scores.numpy()[1:], np.asarray(theirs), atol=1e-4)
            area = np.trapezoid([float(ours.scores[0]), *theirs], dx=1 / steps)
            assert ours.area == pytest.approx(area, abs=1e-3)

    def test_imputation_is_that_of_quantus_and_of_a_dense_system(self):
        from quantus.functions.perturb_func import noisy_linear_imputation

        x = torch.rand(1, 3, 9, 11, dtype=torch.float64)
        gone = torch.rand(9, 11, generator=torch.Generator().manual_seed(4)) < 0.45
        found = metrics.impute(x, gone, noise=0.0)[0]
        theirs = noisy_linear_imputation(x[0].numpy(), np.flatnonzero(gone.numpy()), noise=0.0)
        np.testing.assert_allclose(found.numpy(), np.asarray(theirs).reshape(3, 9, 11), atol=1e-9)
        torch.testing.assert_close(found[:, ~gone], x[0][:, ~gone])
        for r, c in gone.nonzero().tolist():  # each place is the weighted mean of its neighbours
            total, weight = torch.zeros(3, dtype=torch.float64), 0.0
            for dr in (-1, 0, 1):
                for dc in (-1, 0, 1):
                    if (dr or dc) and 0 <= r + dr < 9 and 0 <= c + dc < 11:
                        share = 1 / 6 if not (dr and dc) else 1 / 12
                        total, weight = total + share * found[:, r + dr, c + dc], weight + share
            torch.testing.assert_close(found[:, r, c], total / weight)
        noisy = metrics.impute(x, gone)[0]
        assert 0.003 < float((noisy - found)[:, gone].std()) < 0.03
        assert torch.equal(noisy, metrics.impute(x, gone)[0])
        assert torch.equal(metrics.impute(x, torch.zeros_like(gone)), x)

    def test_what_is_kept_is_exactly_the_area(self, model):
        seen = []

        def scores(inputs):
            seen.extend(inputs)
            return inputs.flatten(1).sum(1)

        x, map_ = torch.ones(1, 3, 10, 10), torch.rand(1, 1, 10, 10)
        found = metrics.area_curve(scores, x, torch.zeros_like(x), map_, (0.05, 0.2))
        assert found.scores.tolist() == [15.0, 60.0]
        assert [int(one[0].sum()) for one in seen] == [5, 20]
        assert found.area == pytest.approx((15 + 60) / 2)

    def test_road_replaces_the_highest_places(self):
        x, map_ = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
        x[..., 2:4, 2:4] = 1.0
        map_[..., 2:4, 2:4] = 1.0
        found = metrics.road_curve(lambda inputs: inputs.amax((1, 2, 3)), x, map_, (0.02, 0.04))
        assert found.scores[0] == 1.0  # half of the square is still there
        assert abs(float(found.scores[1])) < 0.1


class TestReinitialisation:
    def test_stages_go_from_the_top_down_and_big_ones_are_taken_apart(self):
        from extremal import zoo

        names = [name for name, _ in metrics.stages(zoo.load("embedded").model)]
        assert names[:3] == ["classifier", "bn2", "conv_head"]
        assert names[3:10] == [f"blocks.{index}" for index in (6, 5, 4, 3, 2, 1, 0)]
        assert names[-2:] == ["bn1", "conv_stem"]

    def test_a_copy_forgets_its_top_and_the_network_stays(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        model[1].running_mean.fill_(3.0)
        network = Network(model)
        before = network.weight_hash()
        state = torch.get_rng_state()
        one, two, again = (metrics.reinitialise(network, count) for count in (1, 2, 2))
        assert network.weight_hash() == before
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(one.model[0].weight, model[0].weight)
        assert torch.equal(one.model[1].running_mean, model[1].running_mean)
        assert not torch.equal(one.model[3].weight, model[3].weight)
        assert torch.equal(one.model[3].weight, two.model[3].weight)  # a stage is new in the same way at every depth
        assert float(two.model[1].running_mean.abs().max()) == 0
        assert two.weight_hash() == again.weight_hash()
        assert metrics.reinitialise(network, 0).weight_hash() == before
        with pytest.raises(ExtremalValueError, match=r"count must lie in 0..3, the stages of Sequential, got 4"):
            metrics.reinitialise(network, 4)


class TestEstimates:
    def test_intervals_cover_the_truth_about_as_often_as_they_say(self):
        rng, covered = np.random.default_rng(0), 0
        for trial in range(200):
            estimate = mean(rng.normal(size=60), draws=300, seed=trial)
            covered += estimate.low <= 0 <= estimate.high
        assert 0.88 <= covered / 200 <= 0.99

    def test_pictures_are_drawn_whole(self):
        values = np.repeat(np.random.default_rng(0).normal(size=30), 10)  # ten equal items a picture
        alone, together = mean(values), mean(values, groups=[i // 10 for i in range(300)])
        assert alone.value == pytest.approx(together.value)
        assert together.high - together.low > 2 * (alone.high - alone.low)

    def test_classes_count_alike(self):
        values, classes = [1, 1, 1, 0, math.nan], ["a", "a", "a", "b", "c"]
        estimate = mean_over_classes(values, classes)
        assert (estimate.value, estimate.count, estimate.skipped) == (0.5, 4, 1)
        assert estimate.low <= 0.5 <= estimate.high

    def test_nothing_judged_is_no_number(self):
        estimate = mean([math.nan, math.nan])
        assert math.isnan(estimate.value)
        assert (estimate.count, estimate.skipped) == (0, 2)

    def test_differences_are_of_items_that_both_have(self):
        estimate = mean_paired_difference([1, 2, math.nan, 4], [0, math.nan, 3, 1])
        assert (estimate.value, estimate.count, estimate.skipped) == (2.0, 2, 2)

    def test_the_same_seed_is_the_same_interval(self):
        values = np.random.default_rng(1).random(50)
        assert mean(values) == mean(values)
        assert mean(values).low != mean(values, seed=1).low


def test_messages():
    maps, regions = torch.rand(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    cases = {
        "maps must be a floating tensor (N, 1, *S), got torch.int64; convert with .float()": (
            ExtremalTypeError,
            lambda: metrics.energy(maps.long(), regions),
        ),
        "maps must be (N, 1, *S), got shape (2, 4, 4); add axes with maps[:, None]": (
            ExtremalValueError,
            lambda: metrics.energy(maps[:, 0], regions),
        ),
        "maps must be finite, got 1 NaN or infinite values; check the method": (
            ExtremalValueError,
            lambda: metrics.pointing_game(maps.index_fill(0, torch.tensor(0), torch.nan)[:1, :, :1, :1], regions),
        ),
        "regions must be a bool tensor (N, *S), got torch.float32; compare with a threshold first": (
            ExtremalTypeError,
            lambda: metrics.iou(maps, regions.float()),
        ),
        "regions must have the shape (N, *S) = (2, 4, 4) of the maps, got (1, 4, 4)": (
            ExtremalValueError,
            lambda: metrics.average_precision(maps, regions[:1]),
        ),
        "tolerance must be one length or lengths (N, dimensions), finite and not negative, got -1.0": (
            ExtremalValueError,
            lambda: metrics.pointing_game(maps, regions, -1.0),
        ),
        "maps must have one shape to be compared, got (2, 1, 4, 4) and (1, 1, 4, 4)": (
            ExtremalValueError,
            lambda: metrics.rank_correlation(maps, maps[:1]),
        ),
        "agreement must be of at least 2 seeds, got 1": (ExtremalValueError, lambda: metrics.seed_agreement([maps])),
        "steps must be at least 1, got 0; e.g. 28": (
            ExtremalValueError,
            lambda: metrics.insertion_curve(lambda i: i, maps[:1], maps[:1], maps[:1], 0),
        ),
        "at least one place must stay, all were to be removed; remove a smaller fraction": (
            ExtremalValueError,
            lambda: metrics.impute(maps[:1], regions[0]),
        ),
    }
    for message, (kind, call) in cases.items():
        with pytest.raises(kind) as told:
            call()
        assert str(told.value) == message
