"""Several answers: kept apart, each judged, and told when there is only one."""

from dataclasses import replace
from pathlib import Path as File

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, ExtremalTypeError, ExtremalValueError, explain, judge, smallest_area, stability
from extremal.explanations.exclusion import ExcludeRegion, region_of
from extremal.masking.solvers import Consensus, Path, Search
from extremal.networks.network import Network

SIZE = 56
SHORT = Path(steps=40, polish=9, draws=2, search=4)
AREAS = (0.05, 0.1, 0.2)
BOXES = ((slice(6, 18), slice(6, 18)), (slice(36, 48), slice(34, 46)))


class Either(nn.Module):
    """The best of the means over boxes: each box alone is enough."""

    def __init__(self, boxes: tuple = BOXES) -> None:
        super().__init__()
        self.boxes = boxes

    def forward(self, x: Tensor) -> Tensor:
        means = torch.stack([x[:, :, rows, columns].mean((1, 2, 3)) for rows, columns in self.boxes], 1)
        score = (8 * means).logsumexp(1, keepdim=True) / 8
        return torch.cat([score, -score], 1)


def found(count: int = 1, boxes: tuple = BOXES, **options: object) -> Explanation:
    x = torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.9
    options = {"areas": AREAS, "perturbation": "fade", "score": "logit", "solver": SHORT, **options}
    return explain(Either(boxes), x, 0, **options)


def inside(mask: Tensor, box: tuple[slice, slice]) -> float:
    return float(mask[0][box].sum() / mask.sum())


def test_both_of_two_sufficient_boxes_are_found() -> None:
    result = found(2, alternatives=2)
    assert len(result.alternatives) == 1
    for image in range(2):
        regions = result.regions(image=image)
        assert [region.source for region in regions] == [0, 1]
        homes = [max(range(2), key=lambda b, m=region.mask: inside(m, BOXES[b])) for region in regions]
        assert sorted(homes) == [0, 1], "one in each box"
        for region in regions:
            assert region.effect >= 0.9
            answer = (result, *result.alternatives)[region.source]
            column = AREAS.index(region.area)
            assert float(answer.effects(answer.binary_scores)[image, column]) == pytest.approx(region.effect)
            assert answer.control_scores.shape == result.control_scores.shape
        overlap = (regions[0].mask * regions[1].mask).sum() / torch.maximum(regions[0].mask, regions[1].mask).sum()
        assert float(overlap) < 0.2


def test_only_one_sufficient_region_is_told() -> None:
    result = found(boxes=BOXES[:1], alternatives=3)
    assert len(result.alternatives) == 2
    assert [region.source for region in result.regions()] == [0]


def test_the_first_is_what_is_found_alone() -> None:
    alone, first = found(), found(alternatives=2)
    torch.testing.assert_close(first.masks, alone.masks, atol=1e-4, rtol=0)
    assert alone.alternatives == ()
    assert [region.source for region in alone.regions()] == [0]


def test_each_answer_tells_its_own_cost() -> None:
    result = found(alternatives=2)
    own, other = (answer.settings["evaluations"] for answer in (result, result.alternatives[0]))
    assert own["gradients"] == other["gradients"] == SHORT.draws + SHORT.steps + SHORT.polish * len(AREAS)


def test_saved_and_loaded(tmp_path: File) -> None:
    result = found(alternatives=3)
    result.save(tmp_path / "a.safetensors")
    assert Explanation.load(tmp_path / "a.safetensors") == result


def test_the_scores_of_an_alternative_are_those_of_its_whole_masks() -> None:
    """The search scores what is outside of the first region only; the evidence must not take its scores."""
    result = found(alternatives=2, solver=Consensus(steps=3, least=6))
    (other,) = result.alternatives
    x = result.inputs
    judged = judge(Either(), x, other.masks, 0, areas=AREAS, perturbation="fade", score="logit")
    torch.testing.assert_close(other.binary_scores, judged.binary_scores)


def test_blocks_join_the_alternatives() -> None:
    x = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.9
    short = Path(steps=6, polish=3, draws=1, search=2)
    options = {"areas": (0.1,), "perturbation": "fade", "score": "logit", "solver": short, "alternatives": 2}
    told: list[tuple[int, int]] = []
    small = explain(Network(Either(), memory=1e-9), x, 0, on_evidence=lambda *done: told.append(done), **options)
    large = explain(Either(), x, 0, **options)
    torch.testing.assert_close(small.alternatives[0].masks, large.alternatives[0].masks, atol=1e-4, rtol=0)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]


def test_what_is_taken_is_worth_nothing() -> None:
    taken = torch.zeros(4, 5, dtype=torch.bool)
    taken[:, :2] = True
    masks = torch.rand(1, 3, 1, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    paid = ExcludeRegion(lambda m, mirrored, way: m.flatten(2).sum(2) + mirrored + 10 * way, taken)(masks, True, 2)
    torch.testing.assert_close(paid[0], masks[0, ..., 2:].flatten(1).sum(1) + 21)
    (slopes,) = torch.autograd.grad(paid.sum(), masks)
    torch.testing.assert_close(slopes, (~taken).float().expand_as(masks))


@pytest.mark.parametrize("solver", [Consensus(steps=3, least=6), SHORT, Search(80)])
@pytest.mark.parametrize("has_units", [False, True])
def test_an_alternative_has_no_place_of_the_regions_before_it(
    solver: Consensus | Path | Search, has_units: bool, tmp_path: File
) -> None:
    """Even large masks: only what lies outside of the first region is judged, and it is not enough here."""
    options = {"areas": (0.08, 0.3, 0.6), "alternatives": 3, "solver": solver}
    if has_units:
        options["units"] = torch.arange(SIZE)[:, None] // 4 * (SIZE // 4) + torch.arange(SIZE) // 4
    result = found(2, BOXES[:1], **options)
    for image in range(2):
        excluded = torch.zeros(1, SIZE, SIZE)
        for number, answer in enumerate((result, *result.alternatives)):
            for area in answer.areas:
                mask = answer.binary(area)[image]
                assert float((mask * excluded).sum()) == 0
                if not has_units:
                    assert float(mask.sum()) == min(round(area * SIZE**2), SIZE**2 - float(excluded.sum()))
            column = answer.column(result.areas[-1])
            assert float((answer.masks[image, column] * excluded).sum()) == 0
            if number:
                assert answer.within is not None
                assert torch.equal(answer.within[image], excluded[0] == 0)
                assert float(answer.effects(answer.binary_scores)[image, column]) < 0.5
            excluded = torch.maximum(excluded, region_of(answer)[image].float()[None])
        assert len(result.regions(image=image)) == 1
    result.save(tmp_path / "a.safetensors")
    assert Explanation.load(tmp_path / "a.safetensors") == result


@pytest.mark.parametrize("overlap", [0.0, 0.2])
def test_regions_that_share_no_place_do_not_overlap(overlap: float) -> None:
    assert [region.source for region in found(alternatives=2).regions(overlap=overlap)] == [0, 1]


def test_an_alternative_of_one_input_is_searched_and_copied_in_its_own_places() -> None:
    result = found(alternatives=2)
    (other,) = result.alternatives
    (certificate,) = smallest_area(Either(), other, share=0.4)
    taken = region_of(result)[0]
    assert certificate is not None
    assert not bool((certificate.mask[0] > 0)[taken].any())
    measured = stability(Either(), result.inputs, other, copies=1)
    assert measured.ious.shape == (1, len(AREAS), 1)
    two = found(2, alternatives=2).alternatives[0]
    with pytest.raises(ExtremalValueError, match="an alternative must be of one input"):
        smallest_area(Either(), two)


def test_regions_of_an_insufficient_answer_are_taken_at_its_smallest_area() -> None:
    result = found(2)
    nothing = replace(result, binary_scores=result.score_blank.view(2, 1).expand(2, 3).clone())
    assert torch.equal(region_of(nothing), result.binary(AREAS[0])[:, 0] > 0)
    for image in range(2):
        assert torch.equal(region_of(result)[image], result.smallest(image=image).mask[0] > 0)


@pytest.mark.parametrize(
    ("alternatives", "error", "message"),
    [
        (0, ExtremalValueError, "alternatives must lie in 1..16, got 0; each costs as much as a run of its own"),
        (17, ExtremalValueError, "alternatives must lie in 1..16, got 17; each costs as much as a run of its own"),
        (1.5, ExtremalTypeError, "alternatives must be a whole number, got 1.5; e.g. 3"),
        (True, ExtremalTypeError, "alternatives must be a whole number, got True; e.g. 3"),
    ],
)
def test_bad_numbers_are_told(alternatives: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        found(alternatives=alternatives)
    assert str(caught.value) == message
