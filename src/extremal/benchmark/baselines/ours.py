"""Maps from extremal perturbations, and from the mask gradients that their search starts from."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from extremal.benchmark.baselines.method import AreaMasks, FieldSettings, Maps
from extremal.explanations.build_objective import build_objective
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.effort import NORMAL
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.settings import Settings
from extremal.masking.grid import resize
from extremal.masking.solvers import Consensus, Problem, Solver
from extremal.masking.solvers.path import Path, mask_gradient
from extremal.masking.solvers.penalty import Penalty
from extremal.networks.network import Network
from extremal.scores.target import Target, parse_target

PAPER_AREAS = (0.025, 0.05, 0.1, 0.2)  # paper, section 4.1; those on COCO are in paper_table.py
PAPER_SMOOTH = 0.09  # short sides; paper, section 4.1
SALIENCY_SMOOTH = 0.05  # short sides; the saliency map is finer than a mean of masks (docs/solver_experiments.md)


@dataclass(frozen=True)
class ExplanationMap(FieldSettings):
    """The saliency map of an explanation by `consensus` or `path` (`Explanation.saliency`)."""

    areas: tuple[float, ...] = PAPER_AREAS
    solver: str | Consensus | Path = "consensus"
    perturbation: str = "mixed"
    seed: int = 0
    effort: str = NORMAL  # decides the steps of a solver that is given by its name
    name: str = "consensus"
    smooth: float = SALIENCY_SMOOTH

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values, those of the solver at this effort among them."""
        return {**super().settings(), "solver": Settings(solver=self.solver, effort=self.effort).solver.settings()}

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the saliency maps of `explain`; the cost includes the evidence."""
        result = self._explain(network, x, target, self.areas)
        return Maps(result.saliency().to(x), sum(result.settings["evaluations"].values()))

    def find_masks(self, network: Network, x: Tensor, target: Target, areas: tuple[float, ...]) -> AreaMasks:
        """Return the cut masks of `explain` at these areas; the cost includes the evidence."""
        result = self._explain(network, x, target, areas)
        return AreaMasks(_cut_masks(result), sum(result.settings["evaluations"].values()))

    def _explain(self, network: Network, x: Tensor, target: Target, areas: tuple[float, ...]) -> Explanation:
        return explain(
            network,
            x,
            target,
            areas=areas,
            perturbation=self.perturbation,
            solver=self.solver,
            seed=self.seed,
            effort=self.effort,
        )


@dataclass(frozen=True)
class PenaltyMap(FieldSettings):
    """The mean of the masks by `penalty`, with the perturbation and the score of the paper (section 4.1)."""

    areas: tuple[float, ...] = PAPER_AREAS
    solver: Penalty = field(default_factory=Penalty)
    name: str = "penalty"
    smooth: float = PAPER_SMOOTH

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {**super().settings(), "solver": self.solver.settings()}

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the mean masks of `explain`; the cost is that of the solver, since the map needs no evidence."""
        solver: Solver = self.solver
        result = explain(network, x, target, areas=self.areas, solver=solver, perturbation="blur", score="logit")
        cost = result.settings["evaluations"]
        return Maps(result.saliency(kind="masks").to(x), cost["gradients"] + cost["forwards"])

    def find_masks(self, network: Network, x: Tensor, target: Target, areas: tuple[float, ...]) -> AreaMasks:
        """Return the cut masks of `explain` at these areas; the cost is that of the solver."""
        solver: Solver = self.solver
        result = explain(network, x, target, areas=areas, solver=solver, perturbation="blur", score="logit")
        cost = result.settings["evaluations"]
        return AreaMasks(_cut_masks(result), cost["gradients"] + cost["forwards"])


def _cut_masks(result: Explanation) -> Tensor:
    """Return the cut masks of all areas: (N, A, 1, *S) bool."""
    return torch.stack([result.binary(area) for area in result.areas], 1) > 0


@dataclass(frozen=True)
class MaskGradient(FieldSettings):
    """max(0, Σ dΦ/dθ) over constant masks on the lattice of `path`, under blur: the start of `path` alone."""

    draws: int = 8  # mask values, each evaluated in every orientation
    name: str = "mask-gradient"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs `draws` forward-backward passes per input and orientation."""
        settings = Settings(perturbation="blur")
        with network.frozen() as run:
            run.accelerate(x := x.detach().clone())
            batch_size = run.max_batch_size(x)
            with run.counted() as cost:
                objective = build_objective(run, x, parse_target(target, settings.score), settings)
                reward = ChunkedReward(objective, batch_size)
                problem = Problem(reward, len(x), objective.domain, network.is_mirror_invariant(x), x.dtype, x.device)
                family = objective.domain.exact_area_family(x)
                gradient = mask_gradient(problem, family, self.draws)[0]
            values = resize(family.smooth_parameters(gradient, 1.0), problem.shape).clamp_min(0.0)
            return Maps(values.detach(), cost.forwards + cost.gradients)
