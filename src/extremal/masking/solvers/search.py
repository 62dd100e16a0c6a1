"""`search`: masks from rewards alone, for networks without a gradient.

A linear model of the reward (`reward_model`) is fitted to the masks evaluated so far, and the next masks are level sets
of fields drawn from its posterior (Thompson sampling): random masks of large areas first, then areas that fall to the
smallest one, then the requested areas in turn. Ways of destroying the input and orientations take turns. At the end
each area chooses among the model's own field and the best masks drawn, by the mean over all ways; candidates of larger
areas also occur with the next smaller mask inside. All areas come from one run of exactly the planned evaluations.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.domain import Domain, ExactAreaFamily, evaluate_masks
from extremal.masking.scaling import standardise_each
from extremal.masking.solvers.problem import OnStep, Problem, Recorder, Solution
from extremal.masking.solvers.reward_model import Cells, RewardModel
from extremal.masking.solvers.settings_checks import read_between, read_positive, read_whole

MIN_EVALUATIONS = 50
MAX_SHARE = 0.5  # of the evaluations for one stage
WIDEST_AREAS = 0.2, 0.5  # between which random masks lie
MAX_CANDIDATES = 12  # of an area in the final choice
ELITE_SHARE = 0.25  # of an area's masks, whose mean field is a candidate
OTHER_REACHES = 2.0, 0.5  # factors of the model's own, of further candidates


@dataclass(frozen=True)
class Draw:
    """Masks that are drawn and evaluated in one batch."""

    stage: str  # screening, descent or refinement
    areas: tuple[float, ...]  # of each mask
    temperature: float  # of the posterior

    @property
    def count(self) -> int:
        """Number of masks."""
        return len(self.areas)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Masks of a requested area that were drawn in one batch, for N inputs."""

    fields: Tensor  # (N, K, cells)
    rewards: Tensor  # (N, K)


@dataclass(frozen=True)
class Search:
    """Settings of the solver that needs no gradients.

    >>> Search(evaluations=2000).name
    'search'
    """

    evaluations: int = 500  # rewards per input, each of one mask and one way (preserve and delete; dual: two rows)
    batch: int = 16  # masks drawn from one posterior
    screening: float = 0.25  # share of the evaluations for random masks
    descent: float = 0.5  # share of the evaluations between screening and choice during which the area falls
    choice: float = 0.15  # maximum share of the evaluations for the final choice
    first_temperature: float = 1.0  # of draws, in deviations of the posterior
    last_temperature: float = 0.5
    reach: float = 0.7  # difference in log(area) beyond which masks count much less for the model
    within: float = 3.0  # deviations by which places of the next smaller mask are raised
    temperature: float = 0.15  # of the level, in deviations of the field
    width: float = 1.0  # of the field's Gaussian, in lattice steps

    def __post_init__(self) -> None:
        read_whole(self, "evaluations", low=MIN_EVALUATIONS)
        read_whole(self, "batch")
        read_positive(self, "screening", "descent", "choice")
        for name in ("screening", "descent", "choice"):
            if getattr(self, name) > MAX_SHARE:
                raise ExtremalValueError(f"{name} of search must lie in (0, 0.5], got {getattr(self, name):g}")
        read_positive(self, "first_temperature", "last_temperature", "reach", "temperature", "width")
        read_between(self, "within")

    @property
    def name(self) -> str:
        """The short name."""
        return "search"

    @property
    def uses_gradients(self) -> bool:
        """Whether rewards must have a gradient."""
        return False

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **asdict(self)}

    @torch.no_grad()
    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Find masks of exactly the given areas (ascending) in one run."""
        family = problem.domain.exact_area_family(problem.like, self.width)
        generator = torch.Generator().manual_seed(problem.seed)
        draws = self.schedule(areas, problem.ways, generator)
        recorder = Recorder(
            problem, len(draws) + (len(areas) if self.count_candidates(areas, problem.ways) else 0), on_step
        )
        model = RewardModel(Cells(problem.domain, family, problem.like), problem.count, self.reach)
        drawn = self._draw(problem, family, model, draws, generator, recorder)
        parameters = self._choose(problem, family, model, areas, drawn, recorder)
        masks = evaluate_masks(family, parameters, areas, self.temperature)
        return recorder.build_solution(masks, parameters, self.find_support(parameters, problem.domain))

    def rebuild_masks(self, parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """Return the masks (N, A, 1, *S) of a solution's parameters (N, A, 1, *lattice) at these areas."""
        return evaluate_masks(domain.exact_area_family(parameters, self.width), parameters, areas, self.temperature)

    def find_support(self, parameters: Tensor, domain: Domain) -> Tensor:
        """Return how far fields (N, A, 1, *lattice) of a solution are above their mean at each place: (N, 1, *S) ≥ 0.

        The mean over areas; ones for an input whose fields are constant.
        """
        family = domain.exact_area_family(parameters, self.width)
        fields = family.to_places(standardise_each(parameters).flatten(0, 1)).clamp_min(0.0)
        support = fields.view(*parameters.shape[:2], *fields.shape[1:]).mean(1)
        is_supported = (support.flatten(1).amax(1) > 0).view(-1, *[1] * (support.ndim - 1))
        return torch.where(is_supported, support, torch.ones_like(support))

    def count_candidates(self, areas: Sequence[float], ways: int) -> int:
        """Return the number of candidates of each area in the final choice; 0: there is no choice.

        >>> Search().count_candidates((0.05, 0.1, 0.2, 0.4), ways=3)
        6
        """
        count = min(MAX_CANDIDATES, int(self.choice * self.evaluations) // (len(areas) * ways))
        return count if count > 1 else 0

    def schedule(self, areas: tuple[float, ...], ways: int, generator: torch.Generator | None = None) -> list[Draw]:
        """Return all batches of masks before the final choice, in order.

        >>> draws = Search(evaluations=100).schedule((0.1,), ways=1)
        >>> sum(draw.count for draw in draws), draws[0].stage, draws[-1].areas[0], draws[-1].temperature
        (88, 'screening', 0.1, 0.5)
        """
        total = self.evaluations - self.count_candidates(areas, ways) * len(areas) * ways
        pairs = max(1, int(self.screening * self.evaluations) // 2)
        low, high = (math.log(max(area, min(areas[0], 0.5))) for area in WIDEST_AREAS)
        fractions = torch.rand(pairs, generator=generator, dtype=torch.float64).tolist()
        wide = [math.exp(low + fraction * (high - low)) for fraction in fractions]
        draws = [
            Draw("screening", tuple(wide[first : first + self.batch] * 2), self.first_temperature)
            for first in range(0, pairs, self.batch)
        ]
        left = total - 2 * pairs
        counts = [min(self.batch, left - first) for first in range(0, left, self.batch)]
        falling = math.ceil(self.descent * len(counts))
        start = WIDEST_AREAS[1] if areas[0] < WIDEST_AREAS[1] else areas[0]
        for index, count in enumerate(counts):
            progress = index / max(1, len(counts) - 1)
            temperature = self.first_temperature + progress * (self.last_temperature - self.first_temperature)
            if index < falling:
                area = start * (areas[0] / start) ** ((index + 1) / falling)
                draws.append(Draw("descent", (area,) * count, temperature))
            else:
                area = areas[(falling - index - 1) % len(areas)]  # from the largest
                draws.append(Draw("refinement", (area,) * count, temperature))
        return draws

    def _draw(
        self,
        problem: Problem,
        family: ExactAreaFamily,
        model: RewardModel,
        draws: list[Draw],
        generator: torch.Generator,
        recorder: Recorder,
    ) -> dict[float, list[Drawn]]:
        """Evaluate all draws, and add them to the model; return those of the refinement by area."""
        basis, drawn, done = model.cells.basis, dict[float, list[Drawn]](), 0
        for draw in draws:
            is_screening = draw.stage == "screening"
            shape = draw.count // 2 if is_screening else draw.count, basis.shape[1]
            noise = torch.randn(*shape, generator=generator, dtype=torch.float64).to(basis)
            if is_screening:
                fields = (torch.cat([noise, -noise]) @ basis.T).expand(problem.count, -1, -1)
            else:
                fields = model.fit(draw.areas[0]).draw_fields(noise, draw.temperature)
            masks = evaluate_masks(family, _to_parameters(model.cells, fields), draw.areas, self.temperature)
            turns = [_turn(problem, done + k) for k in range(draw.count)]
            rewards = problem.reward(masks, [mirrored for mirrored, _ in turns], [way for _, way in turns])
            done += draw.count
            if not recorder.record(draw.stage, masks, rewards):
                break
            model.add(masks, masks.new_tensor(draw.areas), rewards)
            if draw.stage == "refinement":
                drawn.setdefault(draw.areas[0], []).append(Drawn(fields, rewards.nan_to_num(-torch.inf, -torch.inf)))
        return drawn

    def _choose(
        self,
        problem: Problem,
        family: ExactAreaFamily,
        model: RewardModel,
        areas: tuple[float, ...],
        drawn: dict[float, list[Drawn]],
        recorder: Recorder,
    ) -> Tensor:
        """Return the parameters of the best candidate of each area: (N, A, 1, *lattice).

        The reward is that of the cut masks, the mean over all ways, one orientation for each.
        """
        orientations, chosen = problem.orientations(), list[Tensor]()
        count = self.count_candidates(areas, problem.ways) if recorder.finite.any() else 0
        for index, area in enumerate(areas):
            fields = torch.stack(list(islice(_propose(model, area, drawn.get(area, [])), max(1, count))), 1)
            own = standardise_each(_to_parameters(model.cells, fields))
            if count == 0:
                chosen.append(own[:, :1])
                continue
            if chosen:
                below = family.fit(evaluate_masks(family, chosen[-1], areas[index - 1 : index], self.temperature)[:, 0])
                nested = own + 2 * self.within * below.unsqueeze(1)
                own = torch.stack([own, nested], 2).flatten(1, 2)
            own = own[:, :count]
            these = (area,) * own.shape[1]
            masks = family.cut(evaluate_masks(family, own, these, self.temperature), these)
            rewards = torch.zeros(masks.shape[:2], dtype=problem.dtype, device=problem.device)
            for way in range(problem.ways):
                rewards += problem.reward(masks, orientations[(way + index) % len(orientations)], way)
            recorder.record("choice", masks, rewards / problem.ways)
            best = rewards.nan_to_num(-torch.inf, -torch.inf).argmax(1)
            chosen.append(own.gather(1, best.view(-1, 1, *[1] * (own.ndim - 2)).expand(-1, 1, *own.shape[2:])))
        return torch.cat(chosen, 1)


def _propose(model: RewardModel, area: float, drawn: Sequence[Drawn]) -> Iterator[Tensor]:
    """Yield fields (N, cells) for an area, the most promising first: of the model, the best masks' mean, and these."""
    yield model.fit(area).best_field()
    if drawn:
        fields = standardise_each(torch.cat([part.fields for part in drawn], 1))
        order = torch.cat([part.rewards for part in drawn], 1).argsort(dim=1, descending=True, stable=True)
        ranked = fields.gather(1, order.unsqueeze(2).expand_as(fields))
        yield ranked[:, : max(1, int(ELITE_SHARE * ranked.shape[1]))].mean(1)
    yield from (model.fit(area, reach).best_field() for reach in OTHER_REACHES)
    if drawn:
        yield from ranked.unbind(1)


def _to_parameters(cells: Cells, fields: Tensor) -> Tensor:
    """Return parameters (N, K, 1, *lattice) of fields (N, K, cells)."""
    flat = cells.to_parameters(fields.flatten(0, 1))
    return flat.view(*fields.shape[:2], *flat.shape[1:])


def _turn(problem: Problem, index: int) -> tuple[bool, int]:
    """Return the orientation and the way of a mask: ways take turns, and orientations after all ways."""
    orientations = problem.orientations()
    return orientations[index // problem.ways % len(orientations)], index % problem.ways
