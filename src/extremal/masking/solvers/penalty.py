"""`penalty`: the paper's solver (section 3.2), one run for each area.

Stochastic gradient descent on reward − λ·R_a(m) with growing λ, over smooth max-convolution masks. Areas are a batch
axis.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.masking.area import ranking_loss, ranking_template
from extremal.masking.domain import Domain, SmoothFamily
from extremal.masking.solvers.problem import OnStep, Problem, Recorder, Solution, gradient
from extremal.masking.solvers.settings_checks import read_between, read_positive, read_whole

TIE_BREAK = 1e-3  # largest difference of the values of channels or units at the start


@dataclass(frozen=True)
class Penalty:
    """Settings of the paper's solver. A run costs steps·areas passes."""

    steps: int = 800
    rate: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    weight: float = 300.0  # λ at the first step
    growth: float = 1.0035  # factor of λ per step
    padded: bool = False  # R_a includes the margin of σ around the mask, as in the paper's package; areas are nominal

    def __post_init__(self) -> None:
        read_whole(self, "steps")
        read_positive(self, "rate", "weight", "growth")
        read_between(self, "momentum", "dampening", high=1.0)

    @property
    def name(self) -> str:
        """The short name."""
        return "penalty"

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **asdict(self)}

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Find masks of about the given areas: their actual means are what the ranking loss leads to."""
        family = problem.domain.smooth_family(problem.like, self.padded)
        batch = problem.count, len(areas)
        parameters = torch.ones(*batch, 1, *family.parameter_shape, dtype=problem.dtype, device=problem.device)
        if not problem.domain.is_smooth:
            parameters = self._break_ties(problem, family, parameters)
        parameters.requires_grad_()
        flat_areas = parameters.new_tensor(areas).expand(batch).flatten()
        descent = torch.optim.SGD(
            [parameters], lr=self.rate, momentum=self.momentum, dampening=self.dampening, maximize=True
        )
        recorder = Recorder(problem, self.steps, on_step)
        template: Tensor | None = None

        def crop(padded: Tensor) -> Tensor:
            return family.crop(padded).reshape(*batch, 1, *problem.shape)

        for index in range(self.steps):
            padded = family.evaluate_with_margin(parameters.flatten(0, 1))  # (N·A, 1, *S + margins)
            mirrored, way = problem.turn(index + 1)
            rewards = problem.reward(crop(padded), mirrored, way)
            if template is None:
                template = ranking_template(flat_areas, padded[0].numel())
            loss = ranking_loss(padded, flat_areas, template).view(batch)
            objective = rewards - self.weight * self.growth**index * loss
            parameters.grad = gradient(objective, parameters)
            descent.step()
            with torch.no_grad():
                parameters.clamp_(0, 1)
            if not recorder.record("descent", crop(padded), rewards):
                break
        with torch.no_grad():
            return recorder.build_solution(crop(family.evaluate_with_margin(parameters.flatten(0, 1))), parameters)

    def rebuild_masks(self, parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """Return the masks (N, A, 1, *S) of a solution's parameters (N, A, 1, *lattice)."""
        family = domain.smooth_family(parameters, self.padded)
        masks = family.crop(family.evaluate_with_margin(parameters.flatten(0, 1)))
        return masks.reshape(*parameters.shape[:3], *domain.shape)

    def _break_ties(self, problem: Problem, family: SmoothFamily, parameters: Tensor) -> Tensor:
        """Lower parameters of one slightly, in the order of the reward's gradient.

        The ranking loss of equal values depends on their order, which nothing smooths across channels or units.
        """
        parameters.requires_grad_()
        padded = family.evaluate_with_margin(parameters.flatten(0, 1))
        masks = family.crop(padded).reshape(*parameters.shape[:3], *problem.shape)
        slopes = gradient(problem.reward(masks, False), parameters)
        ranks = slopes.flatten(3).argsort(-1).argsort(-1).view_as(slopes) / slopes[0, 0, 0].numel()
        return (parameters - TIE_BREAK * (1 - ranks)).detach()
