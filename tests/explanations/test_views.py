"""What results offer at a prompt: five lines, pictures, and maps for other libraries."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from extremal import ChannelExplanation, ExtremalValueError, Network, explain_channels
from extremal.explanations.display import MAX_LISTED
from extremal.explanations.overlay import FADE_CONTRAST, FADE_GREY, HEAT_COLOURS, HEAT_OPACITY, draw_outline
from support.made_explanations import MASKS, explanation
from support.toys import Carriers


@pytest.fixture(scope="module")
def channels() -> ChannelExplanation:
    x = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    network = Network(Carriers([3], seed=1), labels=("tabby, tabby cat", "tiger cat"), name="toy")
    return explain_channels(network, x, "features", 0, counts=(2, 3, 12), score="logit")


class TestRepr:
    def test_of_one_input(self) -> None:
        assert repr(explanation()) == (
            "Explanation of tabby, tabby cat by unnamed network, preserve game\n"
            "  areas     25 %, 50 %\n"
            "  effects   25 %, 95 %\n"
            "  verdicts  insufficient, sufficient\n"
            "  best      50 %: 95 % of the effect, sufficient"
        )

    def test_of_many_inputs(self) -> None:
        lines = repr(explanation(images=20)).splitlines()
        assert len(lines) == 5
        assert lines[0] == "Explanation of 20 inputs by unnamed network, preserve game"
        assert lines[1].count("tabby, tabby cat") == MAX_LISTED
        assert lines[3].endswith("50 %: 95 %, … (20)")

    def test_of_scores_that_are_not_finite(self) -> None:
        text = repr(explanation(binary_scores=torch.full((1, 2), math.nan)))
        assert "  best      25 %: not finite of the effect, suspect" in text

    def test_of_a_name_of_several_lines(self) -> None:
        assert len(repr(explanation(target_names=("a\nb" * 100,))).splitlines()) == 5

    def test_of_channels(self, channels: ChannelExplanation) -> None:
        lines = repr(channels).splitlines()
        assert lines[0] == "ChannelExplanation of tabby, tabby cat by 64 channels of features of toy"
        assert lines[1] == "  counts    2, 3, 12"
        assert lines[4] == f"  smallest  3 channels: {100 * channels.smallest().effect:.3g} % of the effect"
        assert len(lines) == 5

    def test_of_channels_of_many_inputs(self, channels: ChannelExplanation) -> None:
        lines = repr(ChannelExplanation.concatenate([channels] * 3)).splitlines()
        assert lines[0] == "ChannelExplanation of 3 inputs by 64 channels of features of toy"
        assert lines[3] == "  smallest  3, 3, 3 channels"
        assert len(lines) == 5


class TestMasks:
    def test_are_the_cut_masks(self) -> None:
        mask = explanation().mask(0.25)
        assert mask.dtype == np.bool_
        assert mask.tolist() == [[True, False, False, False], [True, False, False, False]]

    def test_without_an_area_the_headline_is_shown(self) -> None:
        assert explanation().mask().sum() == 4  # 50 % is the smallest sufficient area
        insufficient = explanation(binary_scores=torch.tensor([[4.0, 3.0]]))
        assert insufficient.mask().sum() == 2  # the effect of 25 % is larger

    def test_of_channels(self, channels: ChannelExplanation) -> None:
        mask = channels.mask(3)
        assert mask.shape == (64,)
        assert tuple(np.flatnonzero(mask)) == channels.channels(3)
        assert channels.mask().sum() == 3

    def test_of_an_input_or_area_that_does_not_exist(self, channels: ChannelExplanation) -> None:
        with pytest.raises(ExtremalValueError, match=r"image must lie in 0\.\.0"):
            explanation().mask(image=1)
        with pytest.raises(ExtremalValueError, match=r"computed areas 0\.25, 0\.5, got 0\.3"):
            explanation().mask(0.3)
        with pytest.raises(ExtremalValueError, match="count must be one of the computed counts"):
            channels.mask(5)


class TestHeatmaps:
    def test_are_the_saliency_in_0_to_1(self) -> None:
        made = explanation()
        heat = made.heatmap()
        assert heat.dtype == np.float32
        assert np.allclose(heat, made.saliency()[0, 0] / made.saliency()[0, 0].max())
        assert (heat.min(), heat.max()) == (0.0, 1.0)

    def test_of_nothing_are_zero(self) -> None:
        assert not explanation(masks=torch.zeros_like(MASKS[None])).heatmap().any()

    def test_of_channels(self, channels: ChannelExplanation) -> None:
        assert channels.smallest_activity is not None
        assert np.array_equal(channels.heatmap(), channels.heatmap(channels.smallest().count))
        assert channels.mask().sum() == channels.smallest().count
        heat, values = channels.heatmap(12), channels.activity_map(12)
        assert np.allclose(heat, (values - values.min()) / (values.max() - values.min()), atol=1e-6)

    def test_are_taken_by_captum(self) -> None:
        from captum.attr import visualization

        picture = np.full((2, 4, 3), 0.5)
        heat = explanation().heatmap()[..., None]
        figure, _ = visualization.visualize_image_attr(heat, picture, "blended_heat_map", use_pyplot=False)
        assert figure.axes


class TestOverlays:
    def test_show_the_region_and_fade_the_rest(self) -> None:
        made = explanation(pictures=torch.full((1, 2, 4, 3), 7, dtype=torch.uint8))
        overlay = made.overlay(0.25)
        assert isinstance(overlay, Image.Image)
        pixels = np.asarray(overlay)
        assert pixels[0].tolist()[0] == [7, 7, 7]
        assert pixels[0].tolist()[1] == [0, 0xC2, 0xFF]  # the outline
        assert pixels[0].tolist()[3] == [int(FADE_CONTRAST * 7 + (1 - FADE_CONTRAST) * FADE_GREY)] * 3

    def test_of_a_removed_region(self) -> None:
        pixels = np.asarray(explanation(keeps=False).overlay(0.25))
        assert pixels[0, 1].tolist() == [0xFF, 0x3B, 0x30]
        assert pixels[0, 3].tolist() == [7, 7, 7]

    def test_outlines_are_as_wide_as_a_part_of_the_image(self) -> None:
        mask = torch.zeros(1, 448, 448)
        mask[:, 100:200, 100:200] = 1
        drawn = draw_outline(torch.zeros(448, 448, 3, dtype=torch.uint8), mask, keeps=True)
        assert (drawn[150, :, 2] > 0).nonzero().flatten().tolist() == [98, 99, 200, 201]

    def test_of_an_input_that_is_no_image(self) -> None:
        made = explanation(pictures=torch.zeros(1, 0, 0, 3, dtype=torch.uint8))
        with pytest.raises(ExtremalValueError, match=r"an overlay must be of an image.*use \.mask\(\) or \.heatmap"):
            made.overlay()

    def test_of_channels_are_coloured_where_they_are_active(self, channels: ChannelExplanation) -> None:
        pixels, heat = np.asarray(channels.overlay(12)).astype(int), channels.heatmap(12)
        assert pixels.shape == (16, 20, 3)
        colourful = pixels.max(2) - pixels.min(2)
        assert colourful[heat == 0].max() <= 1
        yellow = np.array(HEAT_COLOURS[-1]) * HEAT_OPACITY
        assert (pixels[heat == 1] >= yellow.astype(int)).all()


def test_results_do_not_import_the_report() -> None:
    import subprocess
    import sys

    code = "import sys; from extremal.explanations.explain import explain; print('extremal.report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
