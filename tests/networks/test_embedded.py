"""The embedded network on a real photograph, end to end."""

import pytest
import torch
from PIL import Image
from skimage import data

import extremal
from extremal.masking.area import count_kept
from extremal.masking.solvers import Consensus
from support.batches import assert_batch_is_its_singles

QUICK = Consensus(steps=2, least=0, columns=2, draws=1, candidates=2)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> extremal.Network:
    return extremal.zoo.load("embedded")


@pytest.fixture(scope="module")
def cat() -> extremal.Explanation:
    return extremal.explain("embedded", data.chelsea(), areas=(0.05, 0.2))


@pytest.fixture(scope="module")
def tripod() -> extremal.Explanation:
    """The photograph of the demo."""
    return extremal.explain("embedded", data.camera(), areas=(0.05, 0.2))


def test_a_cat_is_explained_at_exact_areas(cat: extremal.Explanation) -> None:
    assert "cat" in cat.target_names[0]
    assert cat.masks.shape == (1, 2, 1, 224, 224)
    torch.testing.assert_close(cat.masks.flatten(2).mean(2), torch.tensor([[0.05, 0.2]]), atol=1e-4, rtol=0)
    for area in (0.05, 0.2):
        assert int(cat.binary(area).sum()) == count_kept(area, 224 * 224)
    assert cat.settings["mirror"] is True
    assert cat.settings["evaluations"]["gradients"] <= 160


@pytest.mark.parametrize("column", [0, 1], ids=["area 0.05", "area 0.2"])
def test_the_cut_mask_of_a_clear_answer_beats_every_random_region(tripod: extremal.Explanation, column: int) -> None:
    assert tripod.target_names == ("tripod",)
    curve = tripod.curve()
    assert curve.binary[column] > curve.control_best[column] + 0.2
    assert curve.unseen[column] > 0.2


def test_a_batch_of_photographs_equals_single_runs(network: extremal.Network) -> None:
    # in float64: the run is chaotic, and single-precision rounding differs with the size of a batch
    pictures = [Image.fromarray(data.chelsea()), Image.fromarray(data.coffee())]
    x = torch.cat([network.prepare(picture) for picture in pictures]).double()[..., ::3, ::3]
    network.model.double()
    try:
        assert_batch_is_its_singles(network, x, (0.1, 0.3), QUICK)
    finally:
        network.model.float()
