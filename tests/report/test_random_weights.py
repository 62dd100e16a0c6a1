"""Random weights are told wherever a result is shown; older results say nothing about them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import extremal
from extremal import Explanation, Network, report
from extremal.networks import zoo
from extremal.report.plots import figure
from extremal.report.text import RANDOM_WEIGHTS
from support import synthetic
from support.pages import Page


def test_a_network_by_name_knows() -> None:
    assert zoo.load("torchvision:resnet18", "random", device="cpu").random_weights is True
    assert zoo.load("embedded", device="cpu").random_weights is False
    assert Network(torch.nn.Linear(2, 2)).random_weights is None


@pytest.mark.parametrize("value", [True, False, None])
def test_results_store_it(tmp_path: Path, value: bool | None) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    network = Network(model, random_weights=value, name="toy")
    result = extremal.explain(network, torch.rand(1, 3, 32, 32), 0, areas=(0.2,), perturbation="fade", solver="path")
    result.save(tmp_path / "result.safetensors")
    loaded = Explanation.load(tmp_path / "result.safetensors")
    assert loaded.settings.get("random_weights") is value
    assert ("random weights" in repr(loaded)) == (value is True)


def test_page_figure_and_notebook_tell_it() -> None:
    plain = synthetic.explanation()
    settings = {**plain.settings, "network": "toy", "random_weights": True}
    for result, told in ((plain, False), (replace(plain, settings=settings), True)):
        words = Page(report.render(result)).words
        texts = " ".join(text.get_text().replace("\n", " ") for text in figure(result).texts)
        for shown in (words, texts, result._repr_html_()):
            assert (RANDOM_WEIGHTS in shown) is told
        assert ("toy (random weights)" in words) is told
