"""`path`: every area in one run.

A smooth field is cut at the level that gives the area exactly, and the area shrinks from almost everything to the
smallest wanted: the least needed places go first. The field starts from path-averaged mask gradients; at the end
every wanted area is polished, all in one batch, from the field that the sweep had there, towards black and white.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.domain import Domain, ExactAreaFamily
from extremal.masking.level_set import standardise
from extremal.masking.solvers.problem import OnStep, Problem, Recorder, Solution, gradient
from extremal.masking.solvers.swap import swap_places

RESIDUAL_SCALE = 0.02  # what is left of a field's values beside those of the set that came of it
Areas = tuple[float, ...] | Tensor  # (K,) for every input, or (N, K)


def mask_gradient(problem: Problem, mask: ExactAreaFamily, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """The reward's gradient with respect to constant masks of values (k + ½)/draws, in every orientation, summed.

    Costs one forward-backward pass a value, orientation and input.

    Returns:
        The gradient (N, 1, *lattice), the masks (N, draws, 1, *S), and their mean rewards (N, draws).
    """
    values = (torch.arange(draws, dtype=problem.dtype, device=problem.device) + 0.5) / draws
    spread = values.view(1, -1, *[1] * (1 + len(mask.parameter_shape)))  # (1, draws, 1, *1)
    constant = spread.expand(problem.count, -1, 1, *mask.parameter_shape).contiguous().requires_grad_()
    masks = mask.to_places(constant.flatten(0, 1)).view(problem.count, draws, 1, *problem.shape)
    rewards = torch.stack([problem.reward(masks, flip) for flip in problem.orientations()])
    return gradient(rewards, constant).sum(1), masks, rewards.mean(0)


@dataclass(frozen=True)
class Path:
    """Settings of the area-continuation solver; `passes` tells what a run costs."""

    steps: int = 40  # of the sweep; 52 score a few per cent more (docs/solver.md)
    polish: int = 12  # steps for all wanted areas at once
    rounds: int = 3  # of the polish; each starts from the best fields so far
    draws: int = 4  # mask values of the path-averaged gradient, each in every orientation
    rate: float = 0.1  # Adam's, in the sweep
    polish_rate: float = 0.06  # Adam's, in the polish
    search: int = 12  # small changes tried at the end for each area, and rounds of exchanges of unconnected places
    change: float = 0.1  # their deviation, in deviations of the field
    betas: tuple[float, float] = (0.9, 0.99)
    start: float = 0.3  # deviation of the gradient start; larger points better and scores lower
    temperature: float = 0.15  # of the level, in deviations of the field; 0.3 leaves more grey
    final_temperature: float = 0.05  # at the end of the polish: close to black and white
    width: float = 1.0  # of the field's Gaussian, in lattice steps
    first_area: float = 0.95
    last_area: float = 0.02  # or four fifths of the smallest wanted area, if that is less

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("polish", 0), ("rounds", 1), ("search", 0), ("draws", 1)):
            if getattr(self, name) < least:
                raise ExtremalValueError(f"{name} of path must be at least {least}, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        """The short name."""
        return "path"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"name": self.name, **asdict(self), "betas": list(self.betas)}

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Masks of exactly the given areas (rising), one run."""
        mask = problem.domain.exact_area_family(problem.like, self.width)
        recorder = Recorder(problem, 1 + self.steps + self.polish, on_step)
        start = self._gradient_start(problem, mask, recorder)
        fields = self._sweep(problem, mask, areas, start, recorder)
        best = self._polish(problem, mask, areas, fields, recorder)
        return recorder.solution(best.masks(best.fields), best.fields)

    def masks(self, fields: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """The masks (N, A, 1, *S) of the fields (N, A, 1, *lattice) that a solution of these areas tells."""
        return masks_at_areas(domain.exact_area_family(fields, self.width), fields, areas, self.final_temperature)

    def _gradient_start(self, problem: Problem, mask: ExactAreaFamily, recorder: Recorder) -> Tensor:
        """The reward's gradient with respect to a constant mask, averaged over mask values: (N, 1, 1, *lattice)."""
        total, masks, rewards = mask_gradient(problem, mask, self.draws)
        recorder.record("start", masks, rewards)
        return (self.start * standardise(mask.smooth_parameters(total, 1.0), floor=1e-30)).unsqueeze(1)

    def _sweep(
        self, problem: Problem, mask: ExactAreaFamily, areas: tuple[float, ...], start: Tensor, recorder: Recorder
    ) -> Tensor:
        """Shrink the area over the run; the field is kept where it passes each wanted area: (N, A, 1, *lattice)."""
        schedule = self.schedule(areas)
        descent = Descent(problem, mask, start, self.rate, self.betas)
        kept: dict[float, Tensor] = {}
        for index, area in enumerate(schedule):
            if not recorder.record("sweep", *descent.step((area,), self.temperature)):
                break
            following = schedule[index + 1] if index + 1 < len(schedule) else 0.0
            for wanted in areas:
                if following < wanted and wanted not in kept:
                    kept[wanted] = descent.parameters.detach().clone()
        last = descent.parameters.detach()
        return torch.cat([kept.get(area, last) for area in areas], 1)

    def schedule(self, areas: tuple[float, ...]) -> list[float]:
        """The area of each step of the sweep, falling geometrically.

        >>> areas = Path(steps=3).schedule((0.1,))
        >>> [round(area, 3) for area in areas]
        [0.95, 0.138, 0.02]
        """
        first = max(self.first_area, (1 + areas[-1]) / 2)
        last = min(self.last_area, 0.8 * areas[0])
        return [first * (last / first) ** (i / max(1, self.steps - 1)) for i in range(self.steps)]

    def _polish(
        self, problem: Problem, mask: ExactAreaFamily, areas: tuple[float, ...], fields: Tensor, recorder: Recorder
    ) -> "_Best":
        """All wanted areas at once, the temperature falling; each round starts from the best so far."""
        ratio = self.final_temperature / self.temperature
        temperatures = [self.temperature * ratio ** (i / max(1, self.polish - 1)) for i in range(self.polish)]
        best = _Best(problem, mask, areas, self.final_temperature)
        best.of(fields)
        for candidate in [] if problem.initial_candidates is None else problem.initial_candidates.unbind(1):
            best.replace(candidate.unsqueeze(1).expand_as(fields))
        for round_ in range(self.rounds if self.polish else 0):
            start = best.of(fields) if round_ else best.fields
            descent = Descent(problem, mask, start, self.polish_rate, self.betas)
            first, last = (self.polish * i // self.rounds for i in (round_, round_ + 1))
            for temperature in temperatures[first:last]:
                if recorder.finite.any():
                    recorder.record("polish", *descent.step(areas, temperature))
            fields = descent.parameters.detach()
        if self.polish:
            best.of(fields)
        self._search(problem, best)
        if not problem.has_neighbours:
            best.exchange(self.search)
            best.of(best.fields)  # a set may grow or shrink to its neighbours' size
            best.exchange(self.search // 2)
        return best

    def _search(self, problem: Problem, best: "_Best") -> None:
        """Try small changes of the fields, each and its opposite; no gradient sees what the cut does to the score.

        A change is the same for all inputs: none depends on its neighbours in the batch. Costs one forward pass a try
        and area.
        """
        generator = torch.Generator().manual_seed(problem.seed)
        for index in range(self.search):
            if index % 2 == 0:
                noise = torch.randn(best.fields.shape[1:], generator=generator, dtype=torch.float64)
                change = self.change * standardise(best.mask.smooth_parameters(noise, 1.5)).to(best.fields)
            flat = standardise(best.fields.flatten(0, 1)).view_as(best.fields)
            best.replace(flat + (change if index % 2 == 0 else -change))


class _Best:
    """For each area the field whose cut mask was paid most, of its own and its neighbours' fields of all rounds.

    A field that works at one area bounds what its neighbours must reach.
    """

    def __init__(self, problem: Problem, mask: ExactAreaFamily, areas: tuple[float, ...], temperature: float) -> None:
        self.problem, self.mask, self.areas, self.temperature = problem, mask, areas, temperature
        self.fields = torch.empty(0)  # (N, A, 1, *lattice), once there is a best
        self._paid = torch.empty(0)  # (N, A)

    @torch.no_grad()
    def of(self, fields: Tensor) -> Tensor:
        """The best so far, these fields (N, A, 1, *lattice) among them; costs 3·A − 2 forward passes an input."""
        count = len(self.areas)
        pairs = [(k, field) for k in range(count) for field in range(count) if abs(k - field) <= 1]
        columns, sources = (torch.tensor(side, device=fields.device) for side in zip(*pairs, strict=True))
        offered = fields.index_select(1, sources)
        paid = fields.new_full((len(fields), count, count), -torch.inf)  # of each area and field
        paid[:, columns, sources] = self._pay(offered, tuple(self.areas[k] for k, _ in pairs))
        paid, index = paid.max(2)  # (N, A)
        fields = fields.gather(1, index.view(*index.shape, *[1] * (fields.ndim - 2)).expand_as(fields))
        if self._paid.numel() == 0:
            self.fields, self._paid = fields, paid
        else:
            self._keep(fields, paid)
        return self.fields

    @torch.no_grad()
    def replace(self, fields: Tensor) -> None:
        """Take those of these fields (N, A, 1, *lattice), each at its own area, that are paid more than the best."""
        self._keep(fields, self._pay(fields, self.areas))

    def exchange(self, rounds: int) -> None:
        """Exchange single places of the cut masks, and take the sets that come of it as fields."""
        sets, paid = swap_places(self.problem, self.mask.cut(self.masks(self.fields), self.areas), self._paid, rounds)
        order = standardise(self.fields.flatten(0, 1)).view_as(self.fields)  # within the set, and outside of it
        self._keep(sets + RESIDUAL_SCALE * order, paid)

    def _keep(self, fields: Tensor, paid: Tensor) -> None:
        better = (paid > self._paid).view(*paid.shape, *[1] * (fields.ndim - 2))
        self.fields, self._paid = torch.where(better, fields, self.fields), torch.maximum(paid, self._paid)

    def _pay(self, fields: Tensor, areas: tuple[float, ...]) -> Tensor:
        """What fields (N, K, 1, *lattice) are paid when they are cut at K areas: (N, K), −inf where not finite."""
        paid = self.problem.reward(
            self.mask.cut(masks_at_areas(self.mask, fields, areas, self.temperature), areas), False
        )
        return paid.where(paid.isfinite(), -torch.inf)

    @torch.no_grad()
    def masks(self, fields: Tensor) -> Tensor:
        """(N, A, 1, *S)."""
        return masks_at_areas(self.mask, fields, self.areas, self.temperature)


class Descent:
    """Adam on the fields (N, K, 1, *lattice) of masks at K areas."""

    def __init__(
        self,
        problem: Problem,
        mask: ExactAreaFamily,
        start: Tensor,
        rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.problem, self.mask = problem, mask
        self.parameters = start.clone().requires_grad_()
        self._steps = 0
        self._adam = torch.optim.Adam([self.parameters], lr=rate, betas=betas, maximize=True)

    def step(self, areas: Areas, temperature: float) -> tuple[Tensor, Tensor]:
        """One step up the reward, orientations taking turns; the masks (N, K, 1, *S) before it, and their rewards."""
        flips = self.problem.orientations()
        masks = masks_at_areas(self.mask, self.parameters, areas, temperature)
        self._steps += 1
        rewards = self.problem.reward(masks, flips[self._steps % len(flips)])
        self.parameters.grad = gradient(rewards, self.parameters)
        self._adam.step()
        return masks, rewards


def masks_at_areas(mask: ExactAreaFamily, fields: Tensor, areas: Areas, temperature: float) -> Tensor:
    """Fields (N, K, 1, *lattice) cut at K areas: (N, K, 1, *S) with exactly these means."""
    count, columns = fields.shape[:2]
    wanted = torch.as_tensor(areas, dtype=fields.dtype, device=fields.device).expand(count, columns)
    flat = mask(fields.flatten(0, 1), wanted.flatten(), temperature)
    return flat.view(count, columns, 1, *flat.shape[2:])


def count_passes(settings: Path, areas: int, mirror: bool) -> int:
    """Forward-backward passes of one run for one input in the preserve and delete games (dual: twice).

    >>> count_passes(Path(), areas=5, mirror=True)
    108
    """
    return settings.draws * (2 if mirror else 1) + settings.steps + settings.polish * areas
