"""Experiment: a search whose masks hold still, with the embedded network. Not part of the library yet.

The field starts where mask gradients and the maps of two layers agree under three perturbations (blur, fade, noise).
Then, from the largest area to the smallest, three chains follow smoothed and globally normalised gradients, the
perturbations taking turns; the mean of the chains is the mask, and where the next area starts. At the end each area
chooses between its own mask and masks that contain the next smaller one. Costs 24 + 72 forward-backward and 30 forward
passes at four areas.

Use: python benchmarks/stable_search.py [--cutouts STAMPS] [--targets 19]

Prints, for each target and as medians, the intersection over union between the masks of an image and of its copy with
one grey level of noise, the effect under the blur, and the median effect under black, white, a blur of 40 px and a
mosaic of 28 px, which the search does not use. docs/solver_experiments.md has the results.
"""

import argparse
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from extremal import zoo
from extremal.masking.area import cut
from extremal.masking.domain import evaluate_masks
from extremal.masking.grid import gaussian_blur, resize
from extremal.masking.level_set import LevelSet, standardise
from extremal.masking.perturbations import Blur, Constant, Fade, Noise, Perturb
from extremal.networks.run import Run
from extremal.scores.classes import margin
from solvers import list_targets

AREAS = (0.05, 0.1, 0.2, 0.4)
LAYERS = ("blocks.4", "blocks.6")  # the last of a sixteenth of the input's sides, and the last of all
DRAWS = 4  # values of the constant masks at the start, each in both orientations
CHAINS, STEPS = 3, 6  # of each area
STRENGTH, RATE, MOMENTUM, DECAY = 2.0, 0.35, 0.75, 0.03
TEMPERATURE, SMOOTH, INPUT_NOISE, WITHIN = 0.15, 2.0, 0.1, 3.0

Score = Callable[[Tensor], Tensor]  # inputs (R, C, *S) -> (R,)


def main() -> None:
    """Measure the targets, and print them and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--targets", type=int, default=19)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    network = dataclasses.replace(zoo.load("embedded"), accelerate="onednn")
    rows = []
    with network.frozen() as run:
        for target in list_targets(options.cutouts, options.targets):
            copies = [network.prepare(picture) for picture in (target.picture, add_noise(target.picture))]
            run.accelerate(copies[0], keep=LAYERS)
            masks = [search_masks(run, x, network.index(target.label)) for x in copies]
            overlap = (masks[0] * masks[1]).sum((1, 2, 3)) / torch.maximum(*masks).sum((1, 2, 3))
            own, unseen = measure_effects(score_of(run, network.index(target.label)), copies[0], masks[0])
            rows.append(torch.stack([overlap, own, unseen]))
            print(f"{target.name:30s} {describe(rows[-1])}", flush=True)
    print(f"{f'median of {len(rows)}':30s} {describe(torch.stack(rows).nanmedian(0).values)}")


def describe(values: Tensor) -> str:
    """Return a row of results (3, A) as text."""
    texts = ["/".join(f"{value:.2f}" for value in row) for row in values.tolist()]
    return f"IoU {texts[0]}  own {texts[1]}  unseen {texts[2]}"


def add_noise(picture: Image.Image) -> Image.Image:
    """Return a copy with noise of one grey level."""
    pixels = np.asarray(picture).astype(int)
    noise = np.random.default_rng(1).integers(-1, 2, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def score_of(run: Run, index: int) -> Score:
    """Return the margin of a class as a function of inputs."""

    def score(inputs: Tensor) -> Tensor:
        output = run.evaluate(inputs, torch.zeros(len(inputs), dtype=torch.int64))
        return margin(output, torch.full((len(inputs),), index))

    return score


def search_masks(run: Run, x: Tensor, index: int) -> Tensor:
    """Return cut masks (A, 1, H, W) of one input x (1, 3, H, W)."""
    score = score_of(run, index)
    perturbs = [perturbation(x) for perturbation in (Blur(), Fade(), Noise(100))]
    family = LevelSet(tuple(x.shape[2:]))
    start = STRENGTH * compute_start(run, score, perturbs, family)
    generator = torch.Generator().manual_seed(0)
    change = torch.zeros(CHAINS, 1, *family.parameter_shape)
    momentum, hold, step = torch.zeros_like(change), torch.zeros_like(start), 0
    fields: dict[float, Tensor] = {}
    for area in reversed(AREAS):
        for _ in range(STEPS):
            parameters = (start + change).requires_grad_()
            masks = evaluate_held(family, parameters, hold, area)
            inputs = []
            for chain in range(CHAINS):
                perturbed = perturbs[(step + chain) % len(perturbs)](masks[chain][None, None])[0]
                inputs.append(perturbed.flip(-1) if (step // len(perturbs) + chain) % 2 else perturbed)
            batch = torch.cat(inputs)
            noise = INPUT_NOISE * torch.randn(batch.shape, generator=generator)
            (gradient,) = torch.autograd.grad(score(batch + noise).sum(), parameters)
            direction = standardise(gaussian_blur(gradient, SMOOTH), floor=1e-30)
            momentum = MOMENTUM * momentum + (1 - MOMENTUM) * direction
            change = (1 - DECAY) * change + RATE * momentum
            step += 1
        change = change.mean(0, keepdim=True).expand_as(change)
        momentum = momentum.mean(0, keepdim=True).expand_as(momentum)
        fields[area] = standardise(start + change[:1], floor=1e-30) + hold
        found = evaluate_held(family, start + change[:1], hold, area)
        hold = WITHIN * (F.interpolate(found, size=family.parameter_shape, mode="area") - 1)  # smaller ones stay inside
    return choose_masks(score, x, perturbs, family, fields, start)


def evaluate_held(family: LevelSet, parameters: Tensor, hold: Tensor | float, area: float) -> Tensor:
    """Return the masks (K, 1, H, W) of one area; `hold` is added to the standardised parameters (K, 1, h, w)."""
    held = standardise(parameters, floor=1e-30) + hold
    return evaluate_masks(family, held[:, None], torch.tensor([area]), TEMPERATURE)[:, 0]


def compute_start(run: Run, score: Score, perturbs: list[Perturb], family: LevelSet) -> Tensor:
    """Return the ranks of mask gradients and of two layers' maps, summed and standardised: (1, 1, h, w).

    The maps come from the same passes: Σ_k max(0, dΦ/dA_k)·A_k of the finer layer (LayerCAM), and Σ_k mean(dΦ/dA_k)·A_k
    of the last (Grad-CAM), both summed over perturbations, mask values and orientations.
    """
    outputs: dict[str, Tensor] = {}
    modules = [run.network.model.get_submodule(name) for name in LAYERS]
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
        for name, module in zip(LAYERS, modules, strict=True)
    ]
    totals = [torch.zeros(1, 1, *family.shape) for _ in range(3)]
    try:
        for perturb in perturbs:
            sums: list[Tensor | float] = [0.0, 0.0, 0.0]
            for mirrored in (False, True):
                values = ((torch.arange(DRAWS) + 0.5) / DRAWS).view(1, -1, 1, 1, 1)
                constants = values.expand(-1, -1, -1, *family.shape).clone().requires_grad_()
                inputs = perturb(constants)[0]
                scores = score(inputs.flip(-1) if mirrored else inputs)
                gradients = torch.autograd.grad(scores.sum(), [constants, *(outputs[name] for name in LAYERS)])
                fine, last = (
                    (gradient.flip(-1), outputs[name].detach().flip(-1))
                    if mirrored
                    else (gradient, outputs[name].detach())
                    for name, gradient in zip(LAYERS, gradients[1:], strict=True)
                )
                maps = [
                    gradients[0].sum(1),
                    (fine[0].clamp_min(0.0) * fine[1]).sum((0, 1), keepdim=True),
                    (last[0].mean((2, 3), keepdim=True) * last[1]).sum((0, 1), keepdim=True),
                ]
                sums = [total + values for total, values in zip(sums, maps, strict=True)]
            for index, values in enumerate(sums):
                assert isinstance(values, Tensor)
                scaled = values / (values.abs().mean() + 1e-30)
                totals[index] = totals[index] + resize(scaled, family.shape)
    finally:
        for handle in handles:
            handle.remove()
    ranked = [rank(gaussian_blur(totals[0], 14.0)), *(rank(total.clamp_min(0.0)) for total in totals[1:])]
    combined = torch.stack(ranked).sum(0)
    return standardise(F.interpolate(combined, size=family.parameter_shape, mode="area"), floor=1e-30)


def rank(values: Tensor) -> Tensor:
    """Return the standardised ranks of values (1, 1, H, W); ties are ordered by place."""
    ranks = values.flatten().argsort(stable=True).argsort(stable=True)
    return standardise(ranks.float().view_as(values), floor=1e-30)


@torch.no_grad()
def choose_masks(
    score: Score, x: Tensor, perturbs: list[Perturb], family: LevelSet, fields: dict[float, Tensor], start: Tensor
) -> Tensor:
    """Return for each area the cut mask of the highest mean effect: its own, or one around the next smaller mask."""
    blanks = torch.cat([score(perturb(x.new_zeros(1, 1, 1, *family.shape))[0]) for perturb in perturbs])
    spans = (score(x) - blanks).clamp_min(1.0)
    chosen: list[Tensor] = []
    for index, area in enumerate(AREAS):
        candidates = [evaluate_held(family, fields[area], 0.0, area)]
        if chosen:
            inside = 2 * WITHIN * F.interpolate(chosen[-1], size=family.parameter_shape, mode="area")
            candidates += [evaluate_held(family, field, inside, area) for field in (fields[area], start)]
        masks = cut(torch.cat(candidates)[:, None], (area,))
        effects = []
        for way, perturb in enumerate(perturbs):
            inputs = perturb(masks.transpose(0, 1))[0]
            scores = score(inputs.flip(-1) if (way + index) % 2 else inputs)
            effects.append((scores - blanks[way]) / spans[way])
        chosen.append(masks[int(torch.stack(effects).mean(0).argmax())])
    return torch.cat(chosen)


@torch.no_grad()
def measure_effects(score: Score, x: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the effects of cut masks (A, 1, H, W) under the blur, and their median under unseen perturbations.

    NaN where a perturbation moves the margin by less than 1.
    """
    whole = score(x)

    def effect(destroyed: Tensor) -> Tensor:
        blank = score(destroyed)
        span = whole - blank
        effects = (score(torch.lerp(destroyed, x, masks)) - blank) / span
        return effects if float(span) > 1 else torch.full_like(effects, torch.nan)

    zeros = x.new_zeros(1, 1, 1, *x.shape[2:])
    unseen = [perturbation(x)(zeros)[0] for perturbation in (Constant(-1.0), Constant(1.0), Blur(2, 40.0))]
    unseen.append(F.interpolate(F.avg_pool2d(x, 28), size=x.shape[2:]))
    own = effect(Blur()(x)(zeros)[0])
    return own, torch.stack([effect(destroyed) for destroyed in unseen]).nanmedian(0).values


if __name__ == "__main__":
    main()
