"""`judge`: the evidence of `explain` for masks from elsewhere."""

import pytest
import torch
from torch import Tensor

from extremal import explain, judge
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut
from extremal.masking.solvers import Consensus, Path
from support.bad_networks import Toy

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
AREAS = (0.1, 0.3)
MASKS = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("game", ["preserve", "delete"])
def test_the_masks_that_explain_found_get_the_same_evidence(game: str) -> None:
    found = explain(Toy(), X, (0, 1), areas=AREAS, game=game, seed=3, solver=Path(steps=3, polish=2, draws=2))
    given = judge(Toy(), X, found.masks, (0, 1), areas=AREAS, game=game, seed=3)
    for name in ("scores", "binary_scores", "unseen_scores", "unseen_blank", "control_scores", "mask_areas", "inputs"):
        torch.testing.assert_close(getattr(given, name), getattr(found, name), atol=0, rtol=0, equal_nan=True, msg=name)
    assert given.verdict == found.verdict
    assert given.status == found.status
    assert given.settings["solver"] == {"name": "given"}
    assert given.settings["evaluations"]["gradients"] == 0
    assert given.trace["area"].shape == (2, 0)


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_scores_that_the_search_evaluated_are_those_of_the_masks(game: str) -> None:
    solver = Consensus(steps=2, least=2, draws=1)
    found = explain(Toy(), X, (0, 1), areas=AREAS, game=game, seed=3, solver=solver, alternatives=2)
    for explanation in (found, *found.alternatives):
        given = judge(Toy(), X, explanation.masks, (0, 1), areas=AREAS, game=game, seed=3)
        torch.testing.assert_close(explanation.binary_scores, given.binary_scores, atol=1e-5, rtol=1e-5)


def test_binary_masks_score_as_they_are() -> None:
    masks = cut(MASKS, AREAS)
    given = judge(Toy(), X, masks, 0, areas=AREAS)
    assert torch.equal(given.scores, given.binary_scores)
    assert torch.equal(given.masks, masks)


@pytest.mark.parametrize(
    ("masks", "kind", "message"),
    [
        (
            MASKS[:1],
            ExtremalValueError,
            "(N, A, 1, *S) = (2, 2, 1, 16, 16) of these inputs and areas, got (1, 2, 1, 16",
        ),
        (MASKS[:, 0], ExtremalValueError, "got (2, 1, 16, 16)"),
        (
            MASKS * 0 + 2,
            ExtremalValueError,
            "masks must lie in [0, 1], got values from 2 to 2; cut a saliency map",
        ),
        (MASKS * torch.nan, ExtremalValueError, "masks must lie in [0, 1], got values from nan to nan"),
        (MASKS > 0.5, ExtremalTypeError, "masks must be a floating tensor (N, A, 1, *S), got torch.bool; convert"),
        (MASKS.numpy(), ExtremalTypeError, "masks must be a floating tensor (N, A, 1, *S), got ndarray; convert"),
    ],
)
def test_masks_that_break_a_rule(masks: Tensor, kind: type[ExtremalError], message: str) -> None:
    with pytest.raises(kind) as error:
        judge(Toy(), X, masks, 0, areas=AREAS)
    assert message in str(error.value)
