"""A run of `consensus`: what its stages share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extremal.masking.domain import Areas, ExactAreaFamily, evaluate_masks
from extremal.masking.grid import gaussian_blur, scale_lengths
from extremal.masking.scaling import FLOOR, rank, reduce_large, standardise_each
from extremal.masking.solvers.problem import Problem, Recorder, gradient

if TYPE_CHECKING:
    from extremal.masking.solvers.consensus import Consensus

LEAST_SLOPE = 0.02  # of the largest deviation of the gradients in a step, below which one is not scaled to 1
DIFFERENCE_BLUR = 4.0  # px at a short side of 224 px, of the Gaussian over the differences


@dataclass(frozen=True)
class ConsensusRun:
    """The settings of a run, its problem, and the family of its masks."""

    settings: "Consensus"
    problem: Problem
    reduced: Problem | None  # the same problem, its inputs reduced; None: impossible
    family: ExactAreaFamily
    areas: tuple[float, ...]
    recorder: Recorder

    def at_input(self, n: int) -> "ConsensusRun | None":
        """Return the run of one of the inputs; None: impossible."""
        problem = self.problem.at_input(n)
        if problem is None:
            return None
        reduced = problem.at_scale(self.settings.reduced) if self.reduced else None
        return replace(self, problem=problem, reduced=reduced)

    def build_masks(self, fields: Tensor, areas: Areas) -> Tensor:
        """Return the masks (N, K, 1, *S) of fields (N, K, 1, *lattice), at an area each."""
        return evaluate_masks(self.family, fields, areas, self.settings.temperature)

    def build_cut_masks(self, fields: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Return the masks (N, K, 1, *S) of fields (N, K, 1, *lattice), cut to zeros and ones."""
        return self.family.cut(self.build_masks(fields, areas), areas)

    def find_directions(
        self, problem: Problem, fields: Tensor, areas: Areas, mirrored: Sequence[bool], ways: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of fields, smoothed and divided by their deviation, with the masks and their rewards.

        Args:
            problem: whose rewards count, of the inputs or of reduced ones.
            fields: (N, K, 1, *lattice).
            areas: of the K masks, or one for all.
            mirrored: orientation of each.
            ways: of destroying the input, one for each.

        Returns:
            Directions (N, K, 1, *lattice), masks (N, K, 1, *S) and rewards (N, K).
        """
        fields = fields.detach().contiguous().requires_grad_()
        masks = self.build_masks(standardise_each(fields), areas)
        rewards = problem.reward(masks, mirrored, ways)
        slopes = gradient(rewards, fields).flatten(0, 1)
        smoothed = self.family.smooth_parameters(slopes, self.settings.smooth)
        return _standardise_slopes(smoothed.view_as(fields)), masks, rewards

    @torch.no_grad()
    def raise_mask(self, field: Tensor, k: int) -> Tensor:
        """Return what to add to a field (N, 1, 1, *lattice) so that its masks contain that of `field` at area k."""
        mask = self.build_masks(field, self.areas[k : k + 1])[:, 0]
        return self.settings.inside * self.family.fit(mask).unsqueeze(1)

    def find_flat_places(self) -> Tensor | None:
        """Return a field (N, 1, 1, *lattice) that is high where destroying changes the input least; None: unknown."""
        differences, domain = self.problem.differences, self.problem.domain
        if differences is None:
            return None
        if domain.is_smooth:
            differences = gaussian_blur(differences, scale_lengths(DIFFERENCE_BLUR, domain.shape, domain.spacing))
        ranks = rank(self.family.fit(differences).flatten(1))
        return standardise_each(-ranks.view(len(ranks), 1, 1, *self.family.parameter_shape))


class Momentum:
    """A change that follows directions with momentum, and decays.

    Args:
        rate: of a step.
        settings: with momentum and decay.
    """

    def __init__(self, rate: float, settings: "Consensus") -> None:
        self.rate, self.settings = rate, settings
        self.change: Tensor | float = 0.0
        self._mean: Tensor | float = 0.0

    def add(self, direction: Tensor) -> None:
        """Take a step."""
        self._mean = self.settings.momentum * self._mean + (1 - self.settings.momentum) * direction
        self.change = (1 - self.settings.decay) * self.change + self.rate * self._mean


class Ascent:
    """A field that follows the mean direction of all ways, orientations taking turns.

    Args:
        run: of N inputs.
        problem: whose rewards count, of the inputs or of reduced ones.
        begin: (N, 1, 1, *lattice) field.
        rate: of a step.
    """

    def __init__(self, run: ConsensusRun, problem: Problem, begin: Tensor, rate: float) -> None:
        self._run, self._problem, self._begin, self._steps = run, problem, begin, 0
        self._moved = Momentum(rate, run.settings)

    @property
    def field(self) -> Tensor:
        """The field (N, 1, 1, *lattice) after the steps so far."""
        return self._begin + self._moved.change

    def step(self, areas: Areas) -> tuple[Tensor, Tensor]:
        """Take a step at an area of each input.

        Returns:
            The masks (N, W, 1, *S) before the step, one for each way, and their rewards (N, W).
        """
        ways, orientations = range(self._problem.ways), self._problem.orientations()
        mirrored = [orientations[(self._steps + way) % len(orientations)] for way in ways]
        fields = self.field.expand(-1, len(ways), *self._begin.shape[2:])
        directions, masks, rewards = self._run.find_directions(self._problem, fields, areas, mirrored, ways)
        self._moved.add(directions.mean(1, keepdim=True))
        self._steps += 1
        return masks, rewards


def _standardise_slopes(slopes: Tensor) -> Tensor:
    """Scale gradients (N, K, 1, *lattice) to mean 0 and deviation 1; those that are nearly zero stay small."""
    rows = reduce_large(slopes).flatten(0, 1)
    dims = tuple(range(1, rows.ndim))
    centred = rows - rows.mean(dims, keepdim=True)
    deviations = centred.square().mean(dims).sqrt().view(slopes.shape[:2])
    deviations = deviations.clamp_min(LEAST_SLOPE * deviations.amax(1, keepdim=True) + FLOOR)
    return (centred / deviations.view(-1, *[1] * len(dims))).view_as(slopes)
