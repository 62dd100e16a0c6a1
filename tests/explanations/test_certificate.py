"""Certificates of smallest areas: unseen perturbations decide with the effect, and chance is told."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import explain, judge, smallest_area
from extremal.explanations.candidates import Candidate
from extremal.explanations.certificate import Certificate
from extremal.explanations.explanation import Explanation

SIZE = 40
AREAS = (0.05, 0.2, 0.6)


class Textured(nn.Module):
    """The mean of a block, which counts only if the rest is dark or keeps its texture: not white, blurred or mosaic."""

    def forward(self, x: Tensor) -> Tensor:
        rest = torch.cat([x[:, :, 12:].flatten(1), x[:, :, :12, 12:].flatten(1)], 1)
        gate = torch.sigmoid(60 * (0.1 - rest.mean(1))) + torch.sigmoid(60 * (rest.std(1) - 0.2))
        score = x[:, :, 4:12, 4:12].mean((1, 2, 3)) * gate.clamp(max=1.0)
        return torch.stack([score, -score], 1)


class Anywhere(nn.Module):
    """The brightness of all places, of which a twentieth is enough."""

    def forward(self, x: Tensor) -> Tensor:
        score = (20 * x.mean((1, 2, 3))).clamp(max=1.0) + 0.01 * x.mean((1, 2, 3))
        return torch.stack([score, -score], 1)


def explain_texture(game: str = "preserve") -> Explanation:
    x = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    return explain(Textured(), x, 0, areas=AREAS, perturbation="fade", score="logit", game=game)


def test_unseen_perturbations_decide_with_the_effect() -> None:
    result = explain_texture()
    first = result.smallest()
    assert first is not None
    assert first.area == 0.05
    assert result.verdict[0][0].label == "suspect", "enough only where the rest is faded to black"
    (certificate,) = smallest_area(Textured(), result)
    assert certificate is not None
    assert certificate.area > first.area
    assert certificate.effect >= 0.9
    assert certificate.unseen_effect >= 0.45 > certificate.below_unseen_effect
    assert certificate.below_effect >= 0.9
    assert certificate.verdict.label == "sufficient"


def test_the_mask_of_a_certificate_has_its_effects() -> None:
    result = explain_texture()
    (certificate,) = smallest_area(Textured(), result)
    assert certificate is not None
    judged = judge(
        *(Textured(), result.inputs, certificate.mask[None, None], 0),
        areas=(certificate.area,),
        perturbation="fade",
        score="logit",
    )
    curve = judged.curve()
    assert curve.binary[0] == pytest.approx(certificate.effect, abs=1e-5)
    assert curve.unseen[0] == pytest.approx(certificate.unseen_effect, abs=1e-5)
    assert curve.control_best[0] == pytest.approx(certificate.control_effect, abs=1e-5)
    assert judged.verdict[0][0] == certificate.verdict


class Weighted(nn.Module):
    """The brightness above a fifth, each place with a weight of its own, and its negative."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.rand(shape, generator=torch.Generator().manual_seed(2)) ** 4)

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.2).relu() * self.weights).flatten(1).mean(1)
        return torch.stack([score, -score], 1)


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("kind", ["signal", "volume", "within", "units", "two inputs"])
def test_certificates_hold_when_their_masks_are_judged(kind: str, game: str) -> None:
    dims, count = {"signal": 1, "volume": 3}.get(kind, 2), 2 if kind == "two inputs" else 1
    shape = (SIZE if dims < 3 else 10,) * dims
    options: dict[str, Any] = {"game": game, "perturbation": ("fade", "blur"), "score": "logit"}
    if kind == "within":
        options["within"] = torch.arange(SIZE).expand(shape) >= SIZE // 4
    if kind == "units":
        tiles = torch.arange(SIZE) // 5
        options["units"] = tiles.unsqueeze(1) * (SIZE // 5) + tiles
    x = torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(1)) ** 2
    model = Weighted(shape)
    certificates = smallest_area(model, explain(model, x, [0] * count, areas=AREAS, **options), share=0.6)
    judged_masks = 0
    for n, certificate in enumerate(certificates):
        if certificate is None or certificate.area == 1:
            continue
        found = judge(model, x[n : n + 1], certificate.mask[None, None], 0, areas=(certificate.area,), **options)
        assert certificate.effect >= 0.6
        assert found.curve().binary[0] == pytest.approx(certificate.effect, rel=1e-3)
        assert found.curve().unseen[0] == pytest.approx(certificate.unseen_effect, rel=1e-3, abs=1e-4)
        judged_masks += 1
    assert judged_masks == count


def test_chance_is_told() -> None:
    x = torch.ones(1, 1, SIZE, SIZE)
    result = explain(Anywhere(), x, 0, areas=(0.1, 0.4), perturbation="fade", score="logit")
    (certificate,) = smallest_area(Anywhere(), result)
    assert certificate is not None
    assert certificate.control_effect >= 0.9
    assert certificate.verdict.label == "chance is enough"


def test_masks_are_ordered_by_what_they_lack() -> None:
    effects = [(math.nan, math.nan), (0.2, math.nan), (0.89, math.nan), (1.5, -math.inf), (0.9, 0.44)]
    effects += [(0.9, 0.45), (0.95, math.nan), (1.0, 0.6)]
    orders = [Candidate(0.1, torch.zeros(1, 2, 2), *values).order(0.9) for values in effects]
    assert orders[1:] == sorted(orders[1:])
    assert [order[0] for order in orders] == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_certificate_without_further_scores_is_sufficient() -> None:
    certificate = Certificate(0.1, torch.ones(1, 2, 2), 0.92, 0.09, 0.8, 0.9)
    assert certificate.verdict.label == "sufficient"
