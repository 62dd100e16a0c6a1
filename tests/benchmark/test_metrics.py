"""Metrics of maps against naive loops and against published implementations."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.benchmark import metrics
from extremal.errors import ExtremalTypeError, ExtremalValueError

GUIDE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def draw_case(rng, ties=False):
    """Return a map and a region of random size, sometimes with ties, sometimes empty."""
    height, width = rng.integers(2, 24, 2)
    values = rng.normal(size=(height, width))
    if ties:
        values = np.round(values)
    region = rng.random((height, width)) < rng.choice([0.02, 0.1, 0.5])
    return values, region


def naive_hit(values, region, down, across):
    """Return, place by place, the fraction of maxima with a place of the region inside their ellipse."""
    if not region.any():
        return math.nan
    hits = []
    for r, c in np.argwhere(values == values.max()):
        hit = False
        for rr, cc in np.argwhere(region):
            if down == across == 0:
                hit |= (r, c) == (rr, cc)
            else:
                hit |= ((r - rr) / max(down, 0.4)) ** 2 + ((c - cc) / max(across, 0.4)) ** 2 <= 1
        hits.append(hit)
    return float(np.mean(hits))


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
        values, region = draw_case(rng, ties=index % 3 == 0)
        radii = [(0.0, 0.0), (1.0, 1.0), (2.5, 2.5), (15.0, 15.0), (1.5, 3.0)][index % 5]
        maps, regions = torch.from_numpy(values)[None, None], torch.from_numpy(region)[None]
        tolerance = radii[0] if radii[0] == radii[1] else torch.tensor([radii])
        hit = float(metrics.pointing_game(maps, regions, tolerance))
        energy = float(metrics.energy(maps, regions))
        np.testing.assert_allclose(hit, naive_hit(values, region, *radii), rtol=1e-12)
        np.testing.assert_allclose(energy, naive_energy(values, region), rtol=1e-9)
        judged += not math.isnan(hit)
    assert judged > 800


def test_of_equal_maxima_the_fraction_that_hits_counts():
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
    for metric in (metrics.pointing_game, metrics.iou, metrics.average_precision):
        torch.testing.assert_close(metric(maps, regions), metric(maps**power + 3, regions), equal_nan=True)


def test_the_region_itself_is_the_best_map():
    regions = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.2
    maps = regions[:, None].float()
    for metric in (metrics.pointing_game, metrics.iou, metrics.average_precision, metrics.energy):
        assert metric(maps, regions).tolist() == [1.0, 1.0, 1.0]
    nothing = torch.zeros_like(maps)
    assert metrics.energy(nothing, regions).tolist() == [0.0, 0.0, 0.0]
    for metric in (metrics.pointing_game, metrics.iou, metrics.average_precision, metrics.energy):
        assert bool(metric(maps, torch.zeros_like(regions)).isnan().all())  # never a hit


def test_average_precision_equals_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(1)
    for index in range(60):
        values, region = draw_case(rng, ties=index % 2 == 0)
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


def test_rank_correlation_equals_that_of_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    for index in range(30):
        a, _ = draw_case(rng, ties=index % 2 == 0)
        b = np.round(a + rng.normal(size=a.shape), index % 3)
        ours = metrics.rank_correlation(*(torch.from_numpy(values)[None, None] for values in (a, b)))
        assert float(ours) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    constant = torch.ones(1, 1, 4, 4)
    assert float(metrics.rank_correlation(constant, torch.rand(1, 1, 4, 4))) == 0.0


def test_agreement_is_over_all_pairs():
    maps = [torch.rand(2, 1, 10, 10, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    correlation, overlap = metrics.seed_agreement(maps, area=0.1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    torch.testing.assert_close(correlation, sum(metrics.rank_correlation(maps[i], maps[j]) for i, j in pairs) / 3)
    tops = [[set(map_.flatten().topk(10).indices.tolist()) for map_ in seed] for seed in maps]
    for n in range(2):
        expected = np.mean([len(tops[i][n] & tops[j][n]) / len(tops[i][n] | tops[j][n]) for i, j in pairs])
        assert float(overlap[n]) == pytest.approx(expected)
    correlation, overlap = metrics.seed_agreement([maps[0], maps[0]])
    assert correlation.tolist() == pytest.approx([1.0, 1.0])
    assert overlap.tolist() == [1.0, 1.0]


class TestMosaics:
    def test_cells_lie_in_raster_order(self):
        inputs = torch.rand(9, 3, 6, 8)
        image = metrics.mosaic(inputs, 3)
        assert image.shape == (1, 3, 18, 24)
        for cell in range(9):
            inside = metrics.cell_mask(cell, 3, (18, 24))
            torch.testing.assert_close(image[0][:, inside].view(3, 6, 8), inputs[cell])
        assert torch.equal(
            sum(metrics.cell_mask(cell, 3, (18, 24)).int() for cell in range(9)), torch.ones(18, 24).int()
        )

    def test_cells_can_be_resized(self):
        image = metrics.mosaic(torch.ones(4, 3, 50, 70) * torch.arange(4.0).view(4, 1, 1, 1), 2, size=(20, 24))
        assert image.shape == (1, 3, 20, 24)
        torch.testing.assert_close(image[0, 0, ::19, ::23], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))

    def test_messages(self):
        with pytest.raises(ExtremalValueError, match="a mosaic of 2 × 2 must have 4 inputs"):
            metrics.mosaic(torch.rand(3, 3, 4, 4), 2)
        with pytest.raises(ExtremalValueError, match="a mosaic's size must be a multiple of 3"):
            metrics.mosaic(torch.rand(9, 3, 4, 4), 3, size=(10, 9))
        with pytest.raises(ExtremalValueError, match=r"a cell must lie in 0..3 of a grid of 2 × 2, got 4"):
            metrics.cell_mask(4, 2, (8, 8))
        with pytest.raises(ExtremalTypeError, match=r"a cell must be a whole number, got 1\.5"):
            metrics.cell_mask(1.5, 2, (8, 8))
        for call in (lambda: metrics.cell_mask(0, -2, (8, 8)), lambda: metrics.mosaic(torch.rand(4, 3, 4, 4), -2)):
            with pytest.raises(ExtremalValueError, match="side must be at least 1, got -2"):
                call()
        with pytest.raises(ExtremalTypeError, match="a mosaic's size must be a sequence of whole numbers, got 8"):
            metrics.mosaic(torch.rand(4, 3, 4, 4), 2, 8)
        for size in ((0, 0), (8, 8, 8), (2, 2)):
            with pytest.raises(ExtremalValueError, match="a mosaic's size must be a multiple of 4, height and width"):
                metrics.cell_mask(0, 4, size)


def test_the_recipe_of_the_guide_makes_a_metric_of_torchmetrics():
    pytest.importorskip("torchmetrics")
    (recipe,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(recipe, names)
    maps = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    regions = torch.rand(8, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.1
    metric = names["metric"]
    metric.update(maps[:3], regions[:3])
    metric.update(maps[3:], regions[3:])
    assert float(metric.compute()) == pytest.approx(float(metrics.pointing_game(maps, regions).nanmean()))


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
        "tolerance must be finite and not negative, got -1.0; e.g. 15": (
            ExtremalValueError,
            lambda: metrics.pointing_game(maps, regions, torch.tensor(-1.0)),
        ),
        "tolerance must be at least 0 and finite, got -1; e.g. 15": (
            ExtremalValueError,
            lambda: metrics.pointing_game(maps, regions, -1.0),
        ),
        "tolerance must be at least 0 and finite, got a number of about 401 digits; e.g. 15": (
            ExtremalValueError,
            lambda: metrics.pointing_game(maps, regions, 10**400),
        ),
        "tolerance must be a number or a tensor (N, dimensions), got str; e.g. 15": (
            ExtremalTypeError,
            lambda: metrics.pointing_game(maps, regions, "15"),  # type: ignore[arg-type]
        ),
        "tolerance must be one length or lengths (N, dimensions) = (2, 2) of the maps, got the shape (3, 2)": (
            ExtremalValueError,
            lambda: metrics.pointing_game(maps, regions, torch.ones(3, 2)),
        ),
        "maps must have one shape to be compared, got (2, 1, 4, 4) and (1, 1, 4, 4)": (
            ExtremalValueError,
            lambda: metrics.rank_correlation(maps, maps[:1]),
        ),
        "area must lie in [0, 1], got 5; e.g. 0.1": (
            ExtremalValueError,
            lambda: metrics.seed_agreement([maps, maps], 5),
        ),
        "maps must be tensors (N, 1, *S), one per seed, got 3; pass a list": (
            ExtremalTypeError,
            lambda: metrics.seed_agreement(3),  # type: ignore[arg-type]
        ),
        "area must lie in [0, 1], got nan; e.g. 0.1": (
            ExtremalValueError,
            lambda: metrics.seed_agreement([maps, maps], math.nan),
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
        with pytest.raises(kind) as error:
            call()
        assert str(error.value) == message
