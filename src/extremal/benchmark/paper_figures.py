"""Figures of the paper for given images: methods side by side (its figure 4), and masks over ten areas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from extremal.benchmark.baselines.method import Method
from extremal.benchmark.tasks.task import OnProgress
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import luminance
from extremal.explanations.verdict import find_falls
from extremal.masking.grid import gaussian_blur
from extremal.masking.solvers.repair import MAX_FALL
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network
from extremal.report.figure_style import ACCENT_COLOUR, CONTROL_COLOUR, DPI, hide_axes
from extremal.report.plots import draw_mask
from extremal.report.text import area_percent, percent
from extremal.scores.class_group import ClassGroup
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import margin
from extremal.scores.target import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEN_AREAS = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
TILE_SIZE, LABEL_HEIGHT = 1.5, 0.32  # inches


@dataclass(frozen=True, eq=False)
class MethodMaps:
    """One image, and each method's map of the same class."""

    name: str
    image: np.ndarray[Any, Any]  # (H, W, 3) uint8
    label: str
    maps: tuple[Tensor, ...]  # (H, W) each, in the order of the methods


def attribute_images(
    network: Network,
    images: Sequence[ImagesLike],
    methods: Sequence[Method],
    target: int | str | ClassGroup | None = None,
    on_progress: OnProgress | None = None,
) -> list[MethodMaps]:
    """Return each method's map of each image, for its top class or for one target."""
    results = []
    for index, image in enumerate(images):
        x = prepare(network, image)
        with network.frozen() as run, torch.no_grad():
            classes = ClassQuery(target, margin).resolve(network, run(x))
        maps = []
        for n_done, method in enumerate(methods):
            if on_progress is not None:
                on_progress(method.name, index * len(methods) + n_done, len(images) * len(methods))
            values = method(network, x, list(classes)).values
            maps.append(gaussian_blur(values, method.smooth * min(x.shape[2:]))[0, 0].cpu())
        shown = network.to_images_or_empty(x)[0].numpy()
        results.append(MethodMaps(f"image {index + 1}", shown, network.label(classes[0]), tuple(maps)))
    return results


def draw_methods(results: Sequence[MethodMaps], methods: Sequence[str]) -> "Figure":
    """Draw a row per image and a column per method; maps are scaled to their own range, maxima are marked."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(TILE_SIZE * (len(methods) + 1), (TILE_SIZE + LABEL_HEIGHT) * len(results)),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots(len(results), len(methods) + 1, squeeze=False)
    for row, result in zip(axes, results, strict=True):
        row[0].imshow(result.image)
        row[0].set_title(result.label[:24], size=8, loc="left", parse_math=False)
        hide_axes(row[0])
        for panel, name, values in zip(row[1:], methods, result.maps, strict=True):
            panel.imshow(luminance(result.image), cmap="gray", vmin=0, vmax=255)
            low, high = float(values.min()), float(values.max())
            panel.imshow(values.numpy(), cmap="inferno", alpha=0.65, vmin=low, vmax=max(high, low + 1e-12))
            top, left = divmod(int(values.argmax()), values.shape[1])
            panel.plot(left, top, marker="x", color="white", markersize=6, markeredgewidth=1.6)
            panel.set_title(name, size=8, loc="left")
            hide_axes(panel)
    return figure


def explain_over_areas(
    network: Network,
    images: Sequence[ImagesLike],
    target: Target = None,
    areas: Sequence[float] = TEN_AREAS,
    solver: str = "consensus",
    on_progress: OnProgress | None = None,
) -> list[Explanation]:
    """Explain each image at the given areas, in one run per image."""
    explanations = []
    for index, image in enumerate(images):

        def report_step(step: Any, index: int = index) -> None:
            if on_progress is not None:
                on_progress(step.stage, index * step.total + step.index, len(images) * step.total)

        explanations.append(explain(network, image, target, areas=areas, solver=solver, on_step=report_step))
    return explanations


def rises(explanation: Explanation, *, to_the_end: bool = False) -> bool:
    """Return whether the effect of the cut masks never falls by more than `MAX_FALL` as the area grows.

    The paper's figure on areas shows the same: a larger part of the input should not have a smaller effect. A part can
    have a larger effect than the full input if it omits places that count against the class, and a mask of nearly
    everything has to include these. Effects above 1 therefore count as 1, except with `to_the_end`.
    """
    effects = torch.as_tensor(explanation.curve().binary)
    effects = effects if to_the_end else effects.clamp(max=1.0)
    return bool(find_falls(effects).max() <= MAX_FALL)


def rising_sentence(explanations: Sequence[Explanation]) -> str:
    """Return a sentence with the number of curves that rise."""
    until_full, to_the_end = (
        sum(rises(explanation, to_the_end=end) for explanation in explanations) for end in (False, True)
    )
    return (
        f"{until_full} of {len(explanations)} curves rise until the full effect is kept (never falling by more than "
        f"{100 * MAX_FALL:g} % of it), {to_the_end} to the end"
    )


def draw_areas(explanations: Sequence[Explanation], names: Sequence[str]) -> "Figure":
    """Draw a row per image: its masks over the areas, and the effect against area."""
    from matplotlib.figure import Figure

    count = len(explanations[0].areas)
    figure = Figure(
        figsize=(TILE_SIZE * (count + 3), (TILE_SIZE + LABEL_HEIGHT) * len(explanations) + 0.4),
        dpi=DPI,
        layout="constrained",
    )
    figure.suptitle(rising_sentence(explanations), x=0.01, ha="left", size=11, weight="bold")
    grid = figure.add_gridspec(len(explanations), count + 3)
    for row, (explanation, name) in enumerate(zip(explanations, names, strict=True)):
        first = figure.add_subplot(grid[row, 0])
        first.imshow(explanation.pictures[0].numpy())
        first.set_title(f"{name}: {explanation.target_names[0]}"[:26], size=8, loc="left", parse_math=False)
        hide_axes(first)
        curve = explanation.curve()
        for column, area in enumerate(explanation.areas):
            panel = figure.add_subplot(grid[row, 1 + column])
            draw_mask(panel, explanation, 0, column)
            panel.set_title(f"{area_percent(area)}: {percent(curve.binary[column])}", size=8, loc="left")
        panel = figure.add_subplot(grid[row, count + 1 :])
        panel.plot(explanation.areas, curve.binary, color=ACCENT_COLOUR, marker="o", markersize=3, linewidth=1.8)
        panel.plot(explanation.areas, curve.control, color=CONTROL_COLOUR, linewidth=1)
        panel.axhline(1.0, color="0.7", linewidth=0.8, linestyle=":")
        panel.set_title("effect against area" + ("" if rises(explanation) else " – falls"), size=8, loc="left")
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    return figure
