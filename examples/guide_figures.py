"""Make the figures of the guide from runs of the embedded network on one photograph, and print their numbers.

Usage: python examples/guide_figures.py [FOLDER]      (docs/figures; a minute or two on one core)
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure

import extremal
from extremal.masking.perturbations import PERTURBATIONS, Blur, Mix
from extremal.networks.inputs import prepare
from extremal.report.figure_style import ACCENT_COLOUR, CONTROL_COLOUR, DPI, THRESHOLD_COLOUR, UNSEEN_COLOUR, hide_axes
from extremal.report.plots import draw_mask

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
VALUES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the mask, in the figure of the pyramid
TILE, TITLE = 1.6, 0.3  # inches


def draw_row(pictures: list[np.ndarray], titles: list[str], path: Path) -> None:
    """Draw pictures (H, W, 3) side by side."""
    drawing = Figure(figsize=(TILE * len(pictures), TILE + TITLE), dpi=DPI, layout="constrained")
    for axes, picture, title in zip(drawing.subplots(1, len(pictures)), pictures, titles, strict=True):
        axes.imshow(picture)
        axes.set_title(title, size=9)
        hide_axes(axes)
    drawing.savefig(path)


def pyramid(net: extremal.Network, x: torch.Tensor, path: Path) -> None:
    """Draw the photograph under constant masks."""
    masks = torch.tensor(VALUES).view(1, -1, 1, 1, 1).expand(1, -1, 1, *x.shape[2:])
    shown = net.to_images_or_empty(Blur()(x)(masks)[0]).numpy()
    draw_row(list(shown), [f"m = {value:g}" for value in VALUES], path)


def destroyed(net: extremal.Network, x: torch.Tensor, path: Path) -> None:
    """Draw the destroyed input of each perturbation."""
    nothing = x.new_zeros(1, 1, 1, *x.shape[2:])
    single = {name: known for name, known in PERTURBATIONS.items() if not isinstance(known, Mix)}
    shown = [net.to_images_or_empty(perturbation(x)(nothing)[0])[0].numpy() for perturbation in single.values()]
    draw_row(shown, list(single), path)


def masks(result: extremal.Explanation, path: Path) -> None:
    """Draw masks of four areas as found, and cut to black and white on the photograph."""
    columns = range(1, len(result.areas))
    drawing = Figure(figsize=(TILE * len(columns), 2 * TILE + TITLE), dpi=DPI, layout="constrained")
    panels = drawing.subplots(2, len(columns))
    for upper, lower, column in zip(*panels, columns, strict=True):
        upper.imshow(result.masks[0, column, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        upper.set_title(f"{result.areas[column]:.0%}", size=9)
        draw_mask(lower, result, 0, column)
        hide_axes(upper)
        hide_axes(lower)
    drawing.savefig(path)


def curve(result: extremal.Explanation, path: Path) -> None:
    """Draw the evidence curve."""
    evidence = result.curve()
    drawing = Figure(figsize=(6.6, 3.0), dpi=DPI, layout="constrained")
    axes = drawing.subplots()
    for name, colour, style in (
        ("binary", ACCENT_COLOUR, "o-"),
        ("soft", ACCENT_COLOUR, "o:"),
        ("unseen", UNSEEN_COLOUR, "s--"),
        ("control_best", CONTROL_COLOUR, "^-"),
    ):
        label = name.replace("control_best", "best of up to 8 random regions")
        axes.plot(evidence.areas, getattr(evidence, name), style, color=colour, label=label, markersize=4)
    axes.axhline(0.9, color=THRESHOLD_COLOUR, linewidth=0.8)
    axes.text(evidence.areas[0], 0.92, "enough: 90 %", color=THRESHOLD_COLOUR, size=8, va="bottom")
    axes.set_xscale("log")
    axes.set_xticks(evidence.areas, [f"{area * 100:g} %" for area in evidence.areas])
    axes.minorticks_off()
    axes.set_xlabel("area")
    axes.set_ylabel("fraction of the whole effect")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path)


def sweep(result: extremal.Explanation, path: Path) -> None:
    """Draw area and reward of every mask that `path` evaluated with a gradient."""
    drawing = Figure(figsize=(5.6, 3.2), dpi=DPI, layout="constrained")
    upper, lower = drawing.subplots(2, 1, sharex=True)
    upper.plot(result.trace_step, result.trace_area[0], ".", color=ACCENT_COLOUR, markersize=4)
    upper.set_yscale("log")
    upper.set_yticks((0.02, 0.1, 0.5), ("2 %", "10 %", "50 %"))
    upper.minorticks_off()
    upper.set_ylabel("area")
    lower.plot(result.trace_step, result.trace_reward[0], ".", color=UNSEEN_COLOUR, markersize=4)
    lower.set_ylabel("reward (margin)")
    lower.set_xlabel("step: gradient start, sweep, polish of all areas at once")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path)


def games(results: dict[str, extremal.Explanation], area: float, path: Path) -> None:
    """Draw the cut mask of one area in each game; deleted regions are missing in the picture."""
    drawing = Figure(figsize=(TILE * len(results), TILE + TITLE), dpi=DPI, layout="constrained")
    for axes, (name, result) in zip(drawing.subplots(1, len(results)), results.items(), strict=True):
        draw_mask(axes, result, 0, result.areas.index(area))
        axes.set_title(f"{name}, {area:.0%}", size=9)
        hide_axes(axes)
    drawing.savefig(path)


def print_run(name: str, result: extremal.Explanation) -> None:
    """Print one run as rows of a table."""
    evidence = result.curve()
    for k, area in enumerate(evidence.areas):
        verdict = result.verdict[0][k]
        numbers = (getattr(evidence, column)[k] for column in ("soft", "binary", "unseen", "control", "control_best"))
        cells = (f"{area * 100:g} %", *(f"{number:.2f}" for number in numbers), result.status[0][k], verdict)
        print(f"| {name} |", " | ".join(map(str, cells)), "|", verdict.reason)


def main(folder: Path) -> None:
    """Make all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    net, cat = extremal.zoo.load("embedded"), skimage.data.chelsea()
    x = prepare(net, cat)
    pyramid(net, x, folder / "pyramid.jpg")
    destroyed(net, x, folder / "destroyed.jpg")
    results = {game: extremal.explain(net, x, areas=AREAS, game=game) for game in ("preserve", "delete", "dual")}
    for game, result in results.items():
        print_run(game, result)
    masks(results["preserve"], folder / "masks.jpg")
    curve(results["preserve"], folder / "curve.png")
    sweep(extremal.explain(net, x, areas=AREAS, solver="path", perturbation="blur"), folder / "sweep.png")
    games(results, 0.1, folder / "games.jpg")
    for perturbation in ("fade", "noise"):
        print_run(perturbation, extremal.explain(net, x, areas=AREAS, perturbation=perturbation))
    for score in ("logit", "probability"):
        print_run(score, extremal.explain(net, x, areas=AREAS, score=score))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
