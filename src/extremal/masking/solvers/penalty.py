"""`penalty`: the paper's solver (section 3.2), one run for each area.

Stochastic gradient descent on reward − λ·R_a(m), λ growing, over smooth max-convolution masks. Areas are a batch.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.masking.area import ranking_loss
from extremal.masking.domain import Domain, SmoothFamily
from extremal.masking.solvers.problem import OnStep, Problem, Recorder, Solution, gradient

TIE_BREAK = 1e-3  # by which the values of unconnected places differ at the start


@dataclass(frozen=True)
class Penalty:
    """Settings of the paper's solver. Passes a run: steps·areas."""

    steps: int = 800
    rate: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    weight: float = 300.0  # λ at the first step
    growth: float = 1.0035  # λ's factor at each step
    padded: bool = False  # R_a over the mask with its margin of σ, as the paper's package does; areas are then nominal

    @property
    def name(self) -> str:
        """The short name."""
        return "penalty"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"name": self.name, **asdict(self)}

    def _break_ties(self, problem: Problem, mask: SmoothFamily, parameters: Tensor) -> Tensor:
        """A little less than one where the reward's slope is least.

        The ranking loss of equal values goes by their order, and nothing smooths channels or units across it.
        """
        parameters.requires_grad_()
        masks = mask.crop(mask.evaluate_padded(parameters.flatten(0, 1))).reshape(*parameters.shape[:3], *problem.shape)
        slopes = gradient(problem.reward(masks, False), parameters)
        ranks = slopes.flatten(3).argsort(-1).argsort(-1).view_as(slopes) / slopes[0, 0, 0].numel()
        return (parameters - TIE_BREAK * (1 - ranks)).detach()

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Masks of about the given areas: their true means are what the ranking loss left."""
        mask = problem.domain.smooth_family(problem.like, self.padded)
        rows = problem.count, len(areas)
        parameters = torch.ones(*rows, 1, *mask.parameter_shape, dtype=problem.dtype, device=problem.device)
        if not problem.domain.is_smooth:
            parameters = self._break_ties(problem, mask, parameters)
        parameters.requires_grad_()
        wanted = parameters.new_tensor(areas).expand(rows).flatten()
        descent = torch.optim.SGD(
            [parameters], lr=self.rate, momentum=self.momentum, dampening=self.dampening, maximize=True
        )
        recorder = Recorder(problem, self.steps, on_step)
        flips = problem.orientations()

        def inside(whole: Tensor) -> Tensor:
            return mask.crop(whole).reshape(*rows, 1, *problem.shape)

        for index in range(self.steps):
            whole = mask.evaluate_padded(parameters.flatten(0, 1))  # (N·A, 1, *S + margins)
            rewards = problem.reward(inside(whole), flips[(index + 1) % len(flips)])
            loss = ranking_loss(whole, wanted).view(rows)
            objective = rewards - self.weight * self.growth**index * loss
            parameters.grad = gradient(objective, parameters)
            descent.step()
            with torch.no_grad():
                parameters.clamp_(0, 1)
            if not recorder.record("descent", inside(whole), rewards):
                break
        with torch.no_grad():
            return recorder.solution(inside(mask.evaluate_padded(parameters.flatten(0, 1))), parameters)

    def masks(self, fields: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """The masks (N, A, 1, *S) of the fields (N, A, 1, *lattice) that a solution tells."""
        mask = domain.smooth_family(fields, self.padded)
        return mask.crop(mask.evaluate_padded(fields.flatten(0, 1))).reshape(*fields.shape[:3], *domain.shape)
