"""Domains of masks: spacing, regions that masks lie within, and units."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from extremal import Explanation, Network, explain, judge, smallest_area
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.masking.grid import gaussian_blur, scale_lengths
from extremal.masking.level_set import LevelSet
from extremal.masking.perturbations import Blur
from extremal.masking.smooth_max import SmoothMax
from extremal.masking.solvers import Path, Penalty
from extremal.masking.units import Units
from support.errors import message_of
from support.toys import Boxes, box_mask, overlap, texture

QUICK = Path(steps=40, polish=10, draws=4)
SLOW = Penalty(300, rate=0.05, weight=30)
SHORT = Path(steps=4, polish=2, draws=1, search=2)
X = texture(1, 3, 32, 32)
LEFT = torch.arange(32).expand(32, 32) < 16
TILES = (torch.arange(32) // 8)[:, None] * 4 + torch.arange(32) // 8  # 16 squares of 8 × 8 places
VIDEO = (8, 24, 24)  # frames, height, width


class TestSpacing:
    def test_only_ratios_count(self) -> None:
        assert scale_lengths(7.0, (64, 32), (2, 2)) == scale_lengths(7.0, (64, 32))
        assert scale_lengths(7.0, (64, 32), (1, 2)) == (2.0, 1.0)

    def test_lengths_in_thick_slices_are_shorter(self) -> None:
        assert scale_lengths(20.0, (28, 224, 224), (8, 1, 1)) == (2.5, 20.0, 20.0)

    @pytest.mark.parametrize("spacing", [(3.0, 1.0), (1.0, 0.4)])
    def test_level_sets_stretched_along_one_dimension_are_those_of_the_stretched_input(
        self, spacing: tuple[float, float]
    ) -> None:
        stretched = LevelSet((40, 60), spacing=spacing)
        steps = [max(1.0, length) for length in scale_lengths(7.0, (40, 60), spacing)]
        assert stretched.parameter_shape == tuple(-(-size // step) for size, step in zip((40, 60), steps, strict=True))

    def test_the_reach_of_smooth_masks_in_time_follows_the_spacing(self) -> None:
        near, far = (SmoothMax((16, 64, 64), spacing=(gap, 1, 1)) for gap in (16.0, 1.0))
        assert [mask.sigmas[0] for mask in (near, far)] == [3.0, 6.0]
        assert near.sigmas[1:] == far.sigmas[1:] == (6.0, 6.0)

    def test_a_blur_of_distant_frames_does_not_blur_over_time(self) -> None:
        x = torch.rand(1, 1, 6, 20, 20)
        blurred = Blur(spacing=(1e3, 1, 1))(x)(torch.zeros(1, 1, 1, 6, 20, 20))[:, 0]
        expected = torch.stack([gaussian_blur(x[:, :, t], 20 * 20 / 224) for t in range(6)], 2)
        assert torch.allclose(blurred, expected, atol=1e-5)

    def test_a_blur_far_beyond_the_borders_is_the_same(self) -> None:
        for size, sigma in ((1, 5.0), (2, 3.0), (5, 700.0), (9, 2.5)):
            x, radius = torch.rand(1, 1, size, dtype=torch.float64), math.ceil(4 * sigma)
            weights = torch.exp(-torch.arange(-radius, radius + 1).double().square() / (2 * sigma**2))
            padded = torch.cat([x[0, 0, :1].expand(radius), x[0, 0], x[0, 0, -1:].expand(radius)])
            naive = padded.unfold(0, 2 * radius + 1, 1) @ (weights / weights.sum())
            torch.testing.assert_close(gaussian_blur(x, sigma)[0, 0], naive)

    @pytest.mark.parametrize("spacing", [(1, 1, 1e-9), (1e4, 1, 1), (1, 1, 1e300)])
    def test_a_spacing_with_a_large_ratio(self, spacing: tuple[float, ...]) -> None:
        rule = "spacing must be at most 1,000 times as large along one dimension as along another, got (1"
        assert message_of(Network, nn.Flatten(), spacing=spacing).startswith(rule)
        assert message_of(Blur, spacing=spacing).startswith(f"a blur's {rule}")

    def test_a_spacing_of_other_dimensions(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explain(Network(nn.Flatten(), spacing=(1, 1)), torch.rand(1, 1, 4, 8, 8), 0)
        assert str(caught.value) == (
            "spacing must be a positive number for each of the 3 dimensions of an input, got (1.0, 1.0); "
            "e.g. (2, 1, 1) for slices that are twice as far apart as pixels"
        )

    @pytest.mark.parametrize("distance", [0, -1])
    def test_a_spacing_that_is_not_positive(self, distance: float) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            Network(nn.Flatten(), spacing=(distance, 1, 1))
        assert str(caught.value) == (
            f"spacing must be above 0 and finite, got {distance}; e.g. (2, 1, 1) for slices that are twice as far "
            "apart as pixels"
        )


@pytest.mark.parametrize("spacing", [(), (4.0, 1.0, 1.0)], ids=["equal", "frames"])
def test_an_event_in_a_video_is_found_in_space_and_time(spacing: tuple[float, ...]) -> None:
    x, box = texture(1, 3, *VIDEO), (slice(3, 6), slice(4, 12), slice(8, 18))
    expected = box_mask(box, VIDEO)
    area = float(expected.mean())
    net = Network(Boxes(x, [box]), spacing=spacing)
    result = explain(net, x, 0, areas=(area,), solver=QUICK)
    assert overlap(result.binary(area)[0, 0], expected) >= 0.6
    assert result.settings["spacing"] == list(spacing)


def test_a_wider_mask_in_time_changes_less_from_frame_to_frame() -> None:
    changes = {}
    for gap in (8.0, 0.5):
        family = LevelSet((32, 48, 48), spacing=(gap, 1, 1))
        field = torch.randn(1, 1, *family.parameter_shape, generator=torch.Generator().manual_seed(0))
        changes[gap] = float(family(field, torch.tensor([0.2]), 0.15).diff(dim=2).abs().mean())
    assert changes[0.5] < 0.5 * changes[8.0]


class TestWithin:
    @settings(max_examples=20, deadline=None)
    @given(area=st.floats(0.02, 0.4), seed=st.integers(0, 100), temperature=st.sampled_from([0.05, 0.3]))
    def test_areas_are_exact_and_masks_zero_outside(self, area: float, seed: int, temperature: float) -> None:
        family = LevelSet((30, 41), within=LEFT[:30, :1] | (torch.arange(41) < 25), dtype=torch.float64)
        field = torch.randn(2, 1, *family.parameter_shape, generator=torch.Generator().manual_seed(seed)).double()
        mask = family(field, torch.tensor([area, area / 2], dtype=torch.float64), temperature)
        within = (LEFT[:30, :1] | (torch.arange(41) < 25)).expand(30, 41)
        assert torch.allclose(mask.mean((1, 2, 3)), torch.tensor([area, area / 2], dtype=torch.float64), atol=1e-9)
        assert not mask[:, 0][:, ~within].any()

    def test_the_gradient_is_that_of_finite_differences(self) -> None:
        family = LevelSet((8, 8), within=torch.arange(8).expand(8, 8) < 5, dtype=torch.float64)
        field = torch.randn(1, 1, *family.parameter_shape, dtype=torch.float64, requires_grad=True)
        area, weights = torch.tensor([0.2], dtype=torch.float64), torch.rand(8, 8, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda f: (family(f, area, 0.3) * weights).sum(), field)

    @pytest.mark.parametrize(("game", "solver"), [("preserve", QUICK), ("delete", QUICK), ("preserve", SLOW)])
    def test_of_two_sufficient_patches_the_one_in_the_region_is_found(self, game: str, solver: object) -> None:
        class Either(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.left, self.right = (Boxes(X, [(slice(8, 16), slice(c, c + 8))]) for c in (4, 20))

            def forward(self, x: Tensor) -> Tensor:
                return self.left(x) + self.right(x)

        area = 64 / 1024
        options = {"game": game, "solver": solver, "perturbation": "blur"}
        result = explain(Either(), X, 0, areas=(area,), within=~LEFT, **options)  # type: ignore[arg-type]
        assert overlap(result.binary(area)[0, 0], box_mask((slice(8, 16), slice(20, 28)), (32, 32))) >= 0.6
        assert not result.masks[..., LEFT].any()
        assert result.within is not None
        assert torch.equal(result.within[0], ~LEFT)

    def test_controls_and_certificates_lie_in_the_region(self) -> None:
        model = Boxes(X, [(slice(8, 16), slice(20, 28))])
        result = explain(model, X, 0, areas=(0.05, 0.2), within=~LEFT, solver=QUICK)
        (certificate,) = smallest_area(model, result)
        assert certificate is not None
        assert not certificate.mask[:, LEFT].any()
        assert certificate.below_area < certificate.area <= 0.2


class TestUnits:
    UNEVEN = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, -1, -1])  # of 3, 2, 1 and 4 of twelve places

    @settings(max_examples=30, deadline=None)
    @given(area=st.floats(0.05, 0.8), seed=st.integers(0, 100))
    def test_areas_are_exact_and_units_uniform(self, area: float, seed: int) -> None:
        family = Units(self.UNEVEN, torch.empty(0, dtype=torch.float64))
        field = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        mask = family(field, torch.tensor([area], dtype=torch.float64), 0.3)
        assert float(mask.mean()) == pytest.approx(area, abs=1e-9)
        assert not mask[0, 0, self.UNEVEN < 0].any()
        for unit in range(4):
            assert len(mask[0, 0, unit == self.UNEVEN].unique()) == 1

    @pytest.mark.parametrize(
        ("room", "units"), [(1, {2}), (2, {2}), (3, {0}), (4, {0, 2}), (5, {0, 1}), (6, {0, 1, 2}), (9, {0, 1, 3})]
    )
    def test_cuts_keep_the_highest_units_that_fit(self, room: int, units: set[int]) -> None:
        order = [0, 1, 3, 2]  # from the highest value down; if one does not fit, the next ones are tried
        values = torch.zeros(4).index_copy(0, torch.tensor(order), torch.tensor([4.0, 3.0, 2.0, 1.0]))
        family = Units(self.UNEVEN)
        cut = family.cut(family.to_places(values.view(1, 1, 4))[None], (room / 12,))[0, 0, 0]
        expected = units if room != 2 else {1}
        assert {unit for unit in range(4) if cut[unit == self.UNEVEN].all()} == expected
        assert cut.sum() == sum(int((unit == self.UNEVEN).sum()) for unit in expected)

    @pytest.mark.parametrize("solver", [QUICK, SLOW], ids=["path", "penalty"])
    @pytest.mark.parametrize("game", ["preserve", "delete"])
    def test_the_units_that_the_network_uses_are_found(self, game: str, solver: object) -> None:
        tiles = [(slice(8, 16), slice(16, 24)), (slice(24, 32), slice(0, 8))]
        expected = sum(box_mask(tile, (32, 32)) for tile in tiles)
        result = explain(Boxes(X, tiles), X, 0, areas=(2 / 16, 4 / 16), units=TILES, game=game, solver=solver)  # type: ignore[arg-type]
        assert torch.equal(result.binary(2 / 16)[0, 0], expected)
        assert str(result.verdict[0][0]) == "sufficient"

    def test_tokens_of_a_sequence(self) -> None:
        x, words = texture(1, 8, 24), torch.arange(24) // 3
        result = explain(
            Boxes(x, [(slice(9, 12),)]), x, 0, areas=(1 / 8,), units=words, perturbation="fade", solver=QUICK
        )
        assert result.binary(1 / 8)[0, 0].nonzero().flatten().tolist() == [9, 10, 11]

    def test_labels_may_be_any_numbers_and_arrays(self) -> None:
        model = Boxes(X, [(slice(8, 16), slice(16, 24))])
        plain = explain(model, X, 0, areas=(1 / 16,), units=TILES, solver=SHORT)
        other = explain(model, X, 0, areas=(1 / 16,), units=(TILES * 7 + 3).numpy().astype(np.uint8), solver=SHORT)
        assert torch.equal(plain.masks, other.masks)

    def test_cuts_are_the_same_after_loading(self, tmp_path: object) -> None:
        result = explain(Boxes(X, [(slice(8, 16), slice(16, 24))]), X, 0, areas=(0.1, 0.3), units=TILES, solver=SHORT)
        result.save(f"{tmp_path}/units.safetensors")
        again = Explanation.load(f"{tmp_path}/units.safetensors")
        assert again == result
        for column, (area, count) in enumerate(((0.1, 64), (0.3, 256))):  # one tile, and four
            assert int(again.binary(area).sum()) == count
            assert torch.equal((again.order()[column] < again.places(area)).float(), again.binary(area)[0, 0])

    def test_judge_gives_the_same_scores(self) -> None:
        model = Boxes(X, [(slice(8, 16), slice(16, 24))])
        found = explain(model, X, 0, areas=(0.1,), units=TILES, solver=SHORT)
        again = judge(model, X, found.masks, 0, areas=(0.1,), units=TILES)
        assert torch.equal(again.binary_scores, found.binary_scores)
        torch.testing.assert_close(again.control_scores, found.control_scores, atol=0, rtol=0, equal_nan=True)


INVALID_OPTIONS: list[tuple[dict[str, object], type[ExtremalError], str]] = [
    (
        {"within": LEFT.float()},
        ExtremalTypeError,
        "within must be bool (*S), true where masks may keep places, got torch.float32; e.g. mask > 0.5",
    ),
    (
        {"within": LEFT & False},
        ExtremalValueError,
        "within must be true somewhere, got a region without places; check how it was made",
    ),
    (
        {"within": LEFT[:4]},
        ExtremalValueError,
        "within must have the shape (32, 32) of the input as the network takes it, got (4, 32)",
    ),
    (
        {"within": LEFT, "areas": (0.1, 0.5)},
        ExtremalValueError,
        "areas must be smaller than the region they lie within, which has 0.5 of all places, got 0.5; "
        "ask for smaller areas, or a larger region",
    ),
    (
        {"units": TILES, "within": LEFT},
        ExtremalValueError,
        "within and units must not both be given, got both; give the label −1 to units outside of the region",
    ),
    (
        {"units": TILES.float()},
        ExtremalTypeError,
        "units must be whole numbers (*S), the label of each place, got torch.float32; e.g. superpixels",
    ),
    (
        {"units": torch.where(TILES > 0, -1, TILES)},
        ExtremalValueError,
        "units must name at least two units to choose from, got 1; label places 0, 1, 2, ..., and −1 where nothing may "
        "be kept",
    ),
    (
        {"units": TILES[:8]},
        ExtremalValueError,
        "units must have the shape (32, 32) of the input as the network takes it, got (8, 32)",
    ),
    (
        {"units": TILES, "areas": (0.05, 0.2)},
        ExtremalValueError,
        "areas must hold the smallest unit at least, which has 0.0625 of all places, got 0.05; "
        "ask for larger areas, or pass smaller units",
    ),
    (
        {"units": torch.where(TILES < 4, TILES, -1), "areas": (0.1, 0.3)},
        ExtremalValueError,
        "areas must be smaller than all units together, which have 0.25 of all places, got 0.3; ask for smaller areas",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), INVALID_OPTIONS)
def test_invalid_regions_and_units(options: dict[str, object], kind: type[ExtremalError], message: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        explain(Boxes(X, [(slice(0, 8), slice(0, 8))]), X, 0, **{"areas": (0.2,), "solver": SHORT, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "size"), [((3, 9), "3 × 9"), ((2,), "2"), ((1, 1), "1 × 1")])
def test_an_input_too_small_for_a_mask(shape: tuple[int, ...], size: str) -> None:
    with pytest.raises(ExtremalValueError) as caught:
        explain(nn.Flatten(), torch.rand(1, 2, *shape), 0, areas=(0.5,), solver=SHORT)
    assert str(caught.value) == (
        f"an input must have room for smooth masks, at least 4 places along its short side, got {size}; "
        "pass a larger input, or units to choose from"
    )


def test_a_side_of_one_place_does_not_count() -> None:
    x = texture(1, 3, 1, 120)
    result = explain(Boxes(x, [(slice(0, 1), slice(70, 94))]), x, 0, areas=(0.2,), solver=QUICK)
    assert overlap(result.binary(0.2)[0, 0], box_mask((slice(0, 1), slice(70, 94)), (1, 120))) >= 0.9
