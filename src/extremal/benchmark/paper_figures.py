"""Figures of the paper from chosen photographs: methods side by side (its figure 4), and masks over ten areas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from extremal.benchmark.baselines.method import Method
from extremal.benchmark.runner import OnProgress
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import bind_target
from extremal.explanations.overlay import luminance
from extremal.masking.grid import gaussian_blur
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network
from extremal.report.plots import ACCENT_COLOUR, CONTROL_COLOUR, DPI, draw_mask, hide_axes
from extremal.scores.classes import margin
from extremal.scores.target import Target, parse_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEN_AREAS = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
TILE_SIZE, LABEL_HEIGHT = 1.5, 0.32  # inches
MAX_FALL = (
    0.05  # of the whole effect, that a curve may fall and still count as rising: `evidence.statuses` allows the same
)


@dataclass(frozen=True, eq=False)
class MethodMaps:
    """One photograph and every method's map of the same class."""

    name: str
    image: np.ndarray[Any, Any]  # (H, W, 3) uint8
    label: str
    maps: tuple[Tensor, ...]  # (H, W) each, in the order of the methods


def attribute_images(
    network: Network,
    photos: Sequence[ImagesLike],
    methods: Sequence[Method],
    target: Target = None,
    names: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> list[MethodMaps]:
    """Every method's map of every photograph, for its top class or one target."""
    found = []
    for index, photo in enumerate(photos):
        x = prepare(network, photo)
        with network.frozen() as run, torch.no_grad():
            classes = bind_target(run, x, parse_target(target, margin)).class_indices
        maps = []
        for done, method in enumerate(methods):
            if on_progress is not None:
                on_progress(method.name, index * len(methods) + done, len(photos) * len(methods))
            values = method(network, x, list(classes)).values
            maps.append(gaussian_blur(values, method.smooth * min(x.shape[2:]))[0, 0].cpu())
        name = names[index] if names else f"photograph {index + 1}"
        found.append(MethodMaps(name, network.to_images_or_empty(x)[0].numpy(), network.label(classes[0]), tuple(maps)))
    return found


def draw_methods(found: Sequence[MethodMaps], methods: Sequence[str]) -> "Figure":
    """One row a photograph, one column a method; each map is scaled to its own range, its maximum marked."""
    from matplotlib.figure import Figure

    drawing = Figure(
        figsize=(TILE_SIZE * (len(methods) + 1), (TILE_SIZE + LABEL_HEIGHT) * len(found)), dpi=DPI, layout="constrained"
    )
    axes = drawing.subplots(len(found), len(methods) + 1, squeeze=False)
    for row, one in zip(axes, found, strict=True):
        row[0].imshow(one.image)
        row[0].set_title(one.label[:24], size=8, loc="left", parse_math=False)
        hide_axes(row[0])
        for panel, name, values in zip(row[1:], methods, one.maps, strict=True):
            panel.imshow(luminance(one.image), cmap="gray", vmin=0, vmax=255)
            low, high = float(values.min()), float(values.max())
            panel.imshow(values.numpy(), cmap="inferno", alpha=0.65, vmin=low, vmax=max(high, low + 1e-12))
            top, left = divmod(int(values.argmax()), values.shape[1])
            panel.plot(left, top, marker="x", color="white", markersize=6, markeredgewidth=1.6)
            panel.set_title(name, size=8, loc="left")
            hide_axes(panel)
    return drawing


def explain_over_areas(
    network: Network,
    photos: Sequence[ImagesLike],
    target: Target = None,
    areas: Sequence[float] = TEN_AREAS,
    solver: str = "path",
    on_progress: OnProgress | None = None,
) -> list[Explanation]:
    """An explanation of each photograph at ten areas, from one run each."""
    found = []
    for index, photo in enumerate(photos):

        def tell(step: Any, index: int = index) -> None:
            if on_progress is not None:
                on_progress(step.stage, index * step.total + step.index, len(photos) * step.total)

        found.append(explain(network, photo, target, areas=areas, solver=solver, on_step=tell))
    return found


def rises(explanation: Explanation, *, to_the_end: bool = False, slack: float = MAX_FALL) -> bool:
    """Whether the score of the cut masks never falls by more than `slack` of the whole effect as the area grows.

    The paper's figure on areas is about the same: more of the input should not be worth less. A part can be worth more
    than the whole, with places that speak against the class left out, and a mask of nearly everything has to take
    these in; so effects above 1 count as 1, unless the curve is asked for `to_the_end`.
    """
    effects = torch.as_tensor(explanation.curve().binary)
    effects = effects if to_the_end else effects.clamp(max=1.0)
    return bool((torch.cummax(effects, 0).values - effects).max() <= slack)


def rising_sentence(found: Sequence[Explanation]) -> str:
    """How many curves rise, in a sentence."""
    until, to_the_end = (sum(rises(one, to_the_end=end) for one in found) for end in (False, True))
    return (
        f"{until} of {len(found)} curves rise until the whole effect is kept (never fall by more than "
        f"{100 * MAX_FALL:g} % of it), {to_the_end} to the end"
    )


def draw_areas(found: Sequence[Explanation], names: Sequence[str]) -> "Figure":
    """One row a photograph: its masks over the areas, and the effect against area; the title tells how many rise."""
    from matplotlib.figure import Figure

    count = len(found[0].areas)
    drawing = Figure(
        figsize=(TILE_SIZE * (count + 3), (TILE_SIZE + LABEL_HEIGHT) * len(found) + 0.4), dpi=DPI, layout="constrained"
    )
    drawing.suptitle(rising_sentence(found), x=0.01, ha="left", size=11, weight="bold")
    grid = drawing.add_gridspec(len(found), count + 3)
    for row, (one, name) in enumerate(zip(found, names, strict=True)):
        first = drawing.add_subplot(grid[row, 0])
        first.imshow(one.pictures[0].numpy())
        first.set_title(f"{name}: {one.target_names[0]}"[:26], size=8, loc="left", parse_math=False)
        hide_axes(first)
        curve = one.curve()
        for column, area in enumerate(one.areas):
            panel = drawing.add_subplot(grid[row, 1 + column])
            draw_mask(panel, one, 0, column)
            panel.set_title(f"{100 * area:g} %: {100 * curve.binary[column]:.0f} %", size=8, loc="left")
        panel = drawing.add_subplot(grid[row, count + 1 :])
        panel.plot(one.areas, curve.binary, color=ACCENT_COLOUR, marker="o", markersize=3, linewidth=1.8)
        panel.plot(one.areas, curve.control, color=CONTROL_COLOUR, linewidth=1)
        panel.axhline(1.0, color="0.7", linewidth=0.8, linestyle=":")
        panel.set_title("effect against area" + ("" if rises(one) else " – falls"), size=8, loc="left")
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    return drawing
