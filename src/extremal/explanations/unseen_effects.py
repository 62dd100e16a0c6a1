"""Effects of further masks under the perturbations that the run of an explanation did not use."""

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.evidence import unseen_perturbations
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Objective
from extremal.explanations.verdict import compute_unseen_effects, find_typical_effects
from extremal.file_checks import quote
from extremal.masking.perturbations import Perturbation, prepare_perturbation


def restore_unseen(objective: Objective, explanation: Explanation) -> dict[str, Perturbation]:
    """Return the perturbations that the run of an explanation did not use, in the order in which it scored them.

    Raises:
        ExtremalValueError: it names others than its settings lead to.
    """
    perturbations = unseen_perturbations(objective.perturbation, explanation.settings.get("seed", 0))
    unknown = sorted(set(explanation.unseen_names) - set(perturbations))
    if unknown:
        raise ExtremalValueError(
            f"unseen perturbations of an explanation must be those of its settings, got {quote(unknown[0])}; "
            "explain again"
        )
    return {name: perturbations[name] for name in explanation.unseen_names}


class UnseenEffects:
    """The typical effects of cut masks of all inputs of an explanation under unseen perturbations.

    Args:
        objective: of these inputs.
        explanation: of them, whose scores of the destroyed inputs are known.

    Raises:
        ExtremalValueError: the explanation names other perturbations than its settings lead to.
    """

    def __init__(self, objective: Objective, explanation: Explanation) -> None:
        unseen = restore_unseen(objective, explanation)
        self.objective, self.blank = objective, explanation.unseen_blank.to(objective.x)
        self.perturbs = tuple(prepare_perturbation(perturbation, objective.x) for perturbation in unseen.values())

    @torch.no_grad()
    def __call__(self, cuts: Tensor) -> Tensor:
        """Return the effects of masks (N, K, 1, *S): (N, K), on the CPU; NaN if none is informative."""
        objective, game = self.objective, self.objective.game
        if not self.perturbs:
            return torch.full(cuts.shape[:2], torch.nan)
        scores = objective.evaluate_under(game.kept_part(cuts), self.perturbs)
        effects = compute_unseen_effects(
            scores, self.blank, objective.score_destroyed, objective.score_input, game.keeps
        )
        return find_typical_effects(effects).cpu()
