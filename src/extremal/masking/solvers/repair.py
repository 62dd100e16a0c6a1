"""Repair of `consensus`: a separate search for each area whose effect is below that of a smaller one.

A mask of a larger area may contain that of a smaller one and other places that help or do not matter, so its effect
can be as high. Where it is lower, a search begins at the places around the smaller mask that harm least; where it is
not, nothing changes.
"""

import torch
from torch import Tensor

from extremal.masking.solvers.consensus_run import Ascent, ConsensusRun

MAX_FALL = 0.05  # of the whole effect, above which a fall is repaired, and reported where it remains
STEPS_BETWEEN = 4  # after which the cut mask is scored
LEAST_STEPS = 8  # after which the search may end


def repair_falls(run: ConsensusRun, fields: Tensor, start: Tensor) -> tuple[Tensor, Tensor | None]:
    """Search again for the fields whose effects fall; costs one evaluation of each cut mask if none does.

    Inputs that cannot be asked about alone stay as they are.

    Args:
        run: of N inputs at A areas.
        fields: (N, A, 1, *lattice).
        start: (N, 1, 1, *lattice), of the descent.

    Returns:
        Fields (N, A, 1, *lattice), and the rewards (N, A) of their cut masks, the mean over all ways; None: unknown.
    """
    spans = run.problem.spans
    if spans is None:
        return fields, None
    known = run.problem.whole_rewards
    rewards = _reward_cut_masks(run, fields, run.areas, add_whole=known is None)
    whole = rewards[:, -1:] if known is None else known.unsqueeze(1)
    rewards = rewards[:, : len(run.areas)]
    wanted = torch.minimum(rewards.cummax(1).values, whole) - MAX_FALL * spans.unsqueeze(1)
    repaired = list(zip(torch.split(fields, 1), torch.split(rewards, 1), strict=True))
    for n, falls in enumerate((rewards < wanted).any(1).tolist()):
        part = run.at_input(n) if falls else None
        if part is not None:
            row = slice(n, n + 1)
            repaired[n] = _repair_input(part, fields[row], start[row], rewards[row], whole[row])
    fields, rewards = (torch.cat(values) for values in zip(*repaired, strict=True))
    return fields, rewards


def _repair_input(
    run: ConsensusRun, fields: Tensor, start: Tensor, rewards: Tensor, whole: Tensor
) -> tuple[Tensor, Tensor]:
    """Return fields (1, A, 1, *lattice) of one input whose effects fall less, and the rewards (1, A).

    An area is searched for from flat places around the next smaller mask; while that is not enough, from the start,
    which may leave that mask, and from the best field so far.

    Args:
        run: of the input.
        fields: (1, A, 1, *lattice).
        start: (1, 1, 1, *lattice) of the descent.
        rewards: (1, A) of the cut masks.
        whole: (1, 1) reward of the mask that holds all places.
    """
    flat = run.find_flat_places()
    filler = start if flat is None else flat
    tolerated = MAX_FALL * run.problem.spans.unsqueeze(1)  # type: ignore[union-attr]
    repaired, reached, best = [fields[:, :1]], [rewards[:, :1]], rewards[:, :1]
    for k in range(1, len(run.areas)):
        found = fields[:, k : k + 1], rewards[:, k : k + 1]
        wanted = torch.minimum(best, whole)
        if bool(found[1] < wanted - tolerated):
            enough = wanted - tolerated / 2
            for begin in (filler + run.raise_mask(repaired[-1], k - 1), start, None):
                found = _search_from(run, found[0] if begin is None else begin, k, found, enough)
                if bool(found[1] >= enough):
                    break
        repaired.append(found[0])
        reached.append(found[1])
        best = torch.maximum(best, found[1])
    return torch.cat(repaired, 1), torch.cat(reached, 1)


def _search_from(
    run: ConsensusRun, begin: Tensor, k: int, found: tuple[Tensor, Tensor], enough: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the best field (1, 1, 1, *lattice) of area k and its reward (1, 1) along a search.

    Each step takes the mean direction of all ways, on reduced inputs where the network takes them.

    Args:
        run: of one input.
        begin: (1, 1, 1, *lattice) field with which the search begins.
        k: number of the area.
        found: field and reward of this area so far.
        enough: (1, 1) reward with which the search ends after the least number of steps.
    """
    settings, area = run.settings, run.areas[k : k + 1]
    ascent = Ascent(run, run.reduced or run.problem, begin, settings.repair_rate)
    for step in range(settings.repair_steps + 1):
        if step % STEPS_BETWEEN == 0 or step == settings.repair_steps:
            field = ascent.field
            reward = _reward_cut_masks(run, field, area)
            is_better, is_enough = torch.cat([reward > found[1], (reward >= enough) | (found[1] >= enough)]).tolist()
            found = (field, reward) if is_better[0] else found
            if step == settings.repair_steps or (step >= LEAST_STEPS and is_enough[0]):
                break
        run.recorder.report("repair", *ascent.step(area))
    return found


@torch.no_grad()
def _reward_cut_masks(
    run: ConsensusRun, fields: Tensor, areas: tuple[float, ...], *, add_whole: bool = False
) -> Tensor:
    """Return the rewards (N, K) of cut masks, the mean over all ways; last, if asked, that of all places."""
    masks = run.build_cut_masks(fields, areas)
    if add_whole:
        masks = torch.cat([masks, torch.ones_like(masks[:, :1])], 1)
    return run.problem.reward(masks, False, None if run.problem.ways > 1 else 0)
