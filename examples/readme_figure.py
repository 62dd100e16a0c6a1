"""Draw the README's picture: the regions found in the demo's photograph, and Grad-CAM cut to the same areas.

Usage: python examples/readme_figure.py [PATH]      (docs/tripod.jpg; some twenty seconds on one core)

Prints the effects of both: the mean over the run's ways of destroying, and the median over unseen ones.
"""

import sys
from pathlib import Path

import skimage.data
from matplotlib.figure import Figure
from PIL import Image

import extremal
from extremal.benchmark.baselines import METHODS
from extremal.masking.area import cut
from extremal.networks.inputs import prepare
from extremal.report.figure_style import DPI, hide_axes
from extremal.report.plots import draw_mask
from extremal.report.text import area_percent, percent

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)  # the default of `explain`
SHOWN = (1, 2, 3)  # columns of these areas
TILE, TITLE = 1.75, 0.45  # inches


def main(path: Path) -> None:
    """Explain, judge Grad-CAM's regions, and draw both."""
    photograph = Image.fromarray(skimage.data.camera()).convert("RGB")
    network = extremal.zoo.load("embedded")
    ours = extremal.explain(network, photograph, areas=AREAS)
    x, target = prepare(network, photograph), ours.target[0]
    assert isinstance(target, int)
    maps = METHODS["grad-cam"](network, x, [target]).values
    masks = cut(maps.unsqueeze(1).expand(-1, len(AREAS), -1, -1, -1), AREAS)
    theirs = extremal.judge(network, photograph, masks.to(x), target, areas=AREAS)

    figure = Figure(figsize=(TILE * (1 + len(SHOWN)), 2 * (TILE + TITLE)), dpi=DPI, layout="constrained")
    panels = figure.subplots(2, 1 + len(SHOWN))
    for row, name, result in zip(panels, ("extremal", "Grad-CAM, cut"), (ours, theirs), strict=True):
        row[0].imshow(ours.pictures[0].numpy())
        row[0].set_title(f"{name}:\n{ours.target_names[0]}", size=9, loc="left")
        curve, verdicts = result.curve(), result.verdict[0]
        for panel, column in zip(row[1:], SHOWN, strict=True):
            area = AREAS[column]
            draw_mask(panel, result, 0, column)
            effect, unseen = percent(curve.binary[column]), percent(curve.unseen[column])
            panel.set_title(f"{area_percent(area)} keep {effect}\n{verdicts[column]}", size=9, loc="left")
            print(f"{name}, {area:.0%}: {effect}, unseen {unseen}, {verdicts[column]}")
        for panel in row:
            hide_axes(panel)
    figure.savefig(path, pil_kwargs={"quality": 90})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "tripod.jpg")
