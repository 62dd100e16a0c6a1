"""The report and the figure of channels: numbers, maps, cautions, and safety against any label."""

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extremal import ChannelExplanation, ExtremalValueError, Network, explain_channels
from extremal.report import channel_page
from extremal.report.channel_plots import channel_figure
from support.pages import Page
from support.toys import Carriers


@pytest.fixture(scope="module")
def explanation() -> ChannelExplanation:
    x = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    network = Network(Carriers([3], seed=1), labels=("tabby, tabby cat", "tiger <b>cat"), name="toy")
    return explain_channels(network, x, "features", 0, counts=(2, 3, 12), score="logit")


def test_the_measurements_are_shown_and_nothing_is_loaded(explanation: ChannelExplanation) -> None:
    text = channel_page.render(explanation)
    page, curve = Page(text), explanation.curve()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in text
    for tag, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    words = re.sub(r"\s+", " ", page.words)
    assert "3 of 64 channels of features keep 100 % of the score" in words
    assert f"has {explanation.smallest().count} of 64 channels" in words  # the same number in headline and text
    assert f"{curve.random_best[0]:.0%}".replace("%", " %") in words
    assert sum(tag == "img" for tag, _ in page.elements) == 4  # the image, and one map per count


def test_names_are_escaped(explanation: ChannelExplanation) -> None:
    nasty = "</title><script>alert(1)</script>"
    result = replace(explanation, target_names=(nasty,), layer=nasty, settings={"network": nasty})
    page = Page(channel_page.render(result))
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [{}]  # the page's own
    assert nasty in page.words


def test_cautions_for_bypassed_layers_and_suspect_sets(explanation: ChannelExplanation) -> None:
    bypassed = channel_page.summarise_channels(replace(explanation, bypassed=True))
    assert "Part of the answer bypasses this layer" in bypassed.caution
    full = explanation.score_full
    lucky = replace(explanation, random_scores=explanation.random_scores * 0 + full.view(-1, 1, 1))
    assert "Chance is enough: a random set" in channel_page.summarise_channels(lucky).caution
    ranked = replace(explanation, ranked_scores=explanation.ranked_scores * 0 + 2 * full.view(-1, 1, 1))
    assert "The set of 3 channels is suspect: a ranking's set" in channel_page.summarise_channels(ranked).caution
    weak = replace(explanation, smallest_mask=torch.ones_like(explanation.smallest_mask))
    assert channel_page.summarise_channels(weak).headline.startswith("No set smaller than all 64 channels")


def test_the_smallest_set_has_a_map_of_its_own(explanation: ChannelExplanation, tmp_path: Path) -> None:
    five = torch.zeros_like(explanation.smallest_mask)
    five[:, :5] = 1
    changed = replace(explanation, smallest_mask=five)
    assert list(channel_page.render_maps(changed, 0)) == [2, 3, 5, 12]
    words = re.sub(r"\s+", " ", Page(channel_page.render(changed)).words)
    assert "5 of 64 channels of features keep" in words
    assert re.search(r"5 channels ?the smallest set that is enough", words)
    older = replace(changed, activity=None, smallest_activity=None)
    older.save(tmp_path / "older.safetensors")
    assert ChannelExplanation.load(tmp_path / "older.safetensors") == older
    assert list(channel_page.render_maps(older, 0)) == [2, 3, 12]
    assert older.heatmap().shape == (16, 20)


def test_sentence_on_the_smallest_set(explanation: ChannelExplanation) -> None:
    sentence = channel_page.smallest_sentence(explanation)
    assert sentence.startswith("The smallest sufficient set that was found has 3 of 64 channels (")
    assert "; the best set of 2 that was found has " in sentence
    close = replace(explanation, below_effect=torch.full_like(explanation.below_effect, 0.8961))
    assert channel_page.smallest_sentence(close).endswith("; the best set of 2 that was found has 89.6\xa0%.")
    open_end = replace(explanation, below_count=explanation.below_count * 0)
    assert channel_page.smallest_sentence(open_end).endswith("; every smaller set that was tried is also sufficient.")


def test_image_must_exist(explanation: ChannelExplanation) -> None:
    for function in (channel_page.render, channel_figure):
        with pytest.raises(ExtremalValueError, match=r"image must lie in 0\.\.0 for 1 inputs, got 1"):
            function(explanation, 1)


def test_the_figure_shows_a_map_for_each_count_and_every_control(explanation: ChannelExplanation) -> None:
    result: Any = explanation
    axes = channel_figure(result).axes
    assert len(axes) == 2 + len(result.counts)
    (curve,) = [panel for panel in axes if panel.get_legend() is not None]
    labels = [text.get_text() for text in curve.get_legend().get_texts()]
    assert {"exactly", "as found", "random, to best", "by activation × gradient", "by ablation"} <= set(labels)
    line = next(line for line in curve.get_lines() if line.get_label() == "exactly")
    np.testing.assert_allclose(line.get_ydata(), result.curve().binary)
