"""Stability: whether masks stay where they are, and whether they hold under perturbations that no method has seen."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from extremal.benchmark.baselines.method import Method
from extremal.benchmark.data import DataSet, FieldOfView, FieldsOfView
from extremal.benchmark.data.classes import match_classes
from extremal.benchmark.metrics.shifts import shift_image, shifted_iou
from extremal.benchmark.tasks.task import (
    Item,
    OnProgress,
    RowValues,
    TableColumn,
    compute_margins,
    mask_items,
    network_settings,
    prepare_image,
)
from extremal.errors import ExtremalError
from extremal.explanations.verdict import compute_effects, find_falls
from extremal.jobs.store import Store
from extremal.masking.grid import scale_length
from extremal.masking.perturbations import PERTURBATIONS, Blur, Mosaic, destroy, split_ways
from extremal.masking.solvers.repair import MAX_FALL
from extremal.networks.network import Network
from extremal.networks.noise import add_grey_noise

STABILITY_AREAS = (0.05, 0.1, 0.2, 0.4)
SHIFT = 4.0  # px at a short side of 224 px, of the shifted crop
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # down, right
MOSAIC, WIDE_BLUR = Mosaic(side=28.0), Blur(levels=2, sigma=40.0)  # px at a short side of 224 px
MIN_MARGIN_SPAN = 1.0  # of the margin between the whole and the destroyed input; below it there is no effect to share
FIGURE_AREA = 0.1  # of the bars in the figure; the nearest one is drawn
STATISTICS = {"median": 0.5, "worst tenth": 0.1}  # quantiles over targets

MEASURES = {  # prefix of the row's columns -> heading of the table
    "noise": "IoU with a copy with one grey level of noise",
    "shift": "IoU with a crop shifted by 4 px, brought back",
    "unseen": "Effect kept under black, white, a mosaic and a wide blur",  # no method has seen these
    "blur": "Effect kept under the blur",
    "ways": "Effect kept under the blur, a fade and noise, mean",  # the ways of `perturbation="mixed"`
}
FALLS = {  # columns, and headings of the table
    f"{name}{column}": f"Effect under {ways} that falls by more than 5 % at a larger area{condition}"
    for name, ways in (("falls", "the blur"), ("falls_ways", "the blur, a fade and noise"))
    for column, condition in (("", ""), ("_short", ", below the whole effect"))
}


@dataclass(eq=False)
class StabilityTask:
    """Masks of exact areas on an image, on a copy with one grey level of noise, and on a shifted crop.

    Effects are shares of the margin of the class between the destroyed and the whole input.

    Args:
        network: that is asked.
        data: images with classes; the top class of an image without any.
        areas: shares of places, rising.
        seed: of the noise and the directions of the shifts.
        class_map: outputs of the network for classes with another name there.
    """

    network: Network
    data: DataSet
    areas: tuple[float, ...] = STABILITY_AREAS
    seed: int = 0
    class_map: Mapping[str, int | str] | None = None

    name = "stability"

    def __post_init__(self) -> None:
        """Match the classes of the data set to those of the network."""
        self.classes = match_classes(self.network, self.data.classes, self.class_map)
        self._fields = FieldsOfView(self.network)

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """Each measure at each area, and whether a curve falls, at all or below the whole effect."""
        names = [_column(measure, area) for measure in MEASURES for area in self.areas]
        return {name: pa.float64() for name in (*names, *FALLS)}

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The median over targets and the worst tenth of each measure, and the share of curves that fall."""
        shown = min(self.areas, key=lambda area: abs(area - FIGURE_AREA))
        columns = []
        for measure, heading in MEASURES.items():
            for statistic, share in STATISTICS.items():
                group = f"{heading}, {statistic}"
                columns += [
                    TableColumn(
                        _column(measure, area),
                        f"{100 * area:g} %",
                        quantile=share,
                        group=group,
                        in_figure=area == shown and statistic == "median",
                    )
                    for area in self.areas
                ]
        falls = (TableColumn(name, "targets", higher=False, unit="%", group=heading) for name, heading in FALLS.items())
        return (*columns, *falls)

    def settings(self) -> dict[str, Any]:
        """Return data, network, areas, seed, and the sizes of all changes."""
        return {
            **network_settings(self.network),
            "data": self.data.settings(),
            "classes": dict(self.class_map or {}),
            "areas": list(self.areas),
            "seed": self.seed,
            "shift": SHIFT,
            "unseen": [WIDE_BLUR.sigma, MOSAIC.side],
            "min_span": MIN_MARGIN_SPAN,
        }

    def plan(self, store: Store, on_progress: OnProgress) -> Sequence[str]:
        """Return the keys of the images."""
        return self.data.keys()

    def items(self, key: str) -> list[Item]:
        """Return one item per class in the image, with a noisy and a shifted copy."""
        try:
            sample = self.data.sample(key)
        except ExtremalError as error:
            return [Item(key, "", error=str(error))]
        x = prepare_image(self.network, sample.image)
        field = self._fields.get((sample.image.height, sample.image.width))
        down, right = self._shift(key, field)
        noisy = add_grey_noise(sample.image, self.seed)
        shifted = shift_image(sample.image, down * field.scale[0], right * field.scale[1])
        copies = prepare_image(self.network, noisy), prepare_image(self.network, shifted)
        targets = {region.label: self.classes[region.label] for region in sample.regions} or self._top_class(x)
        return [Item(key, label, target, x, copies=copies) for label, target in targets.items()]

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """Return one row per item."""
        rows = []
        for found, item in zip(mask_items(method, self.network, items, self.areas), items, strict=True):
            x = item.input
            own, noisy, shifted = found.masks[:, :, 0]  # (A, *S) each
            down, right = self._shift(item.key, FieldOfView((1, 1), (0, 0), (x.shape[2], x.shape[3])))
            with self.network.frozen(self.seed) as run, torch.no_grad():
                run.accelerate(x)
                score = partial(compute_margins, run, target=item.target)
                unseen = [kept_effects(score, x, z, own) for z in unseen_inputs(self.network, x)]
                seen = {name: kept_effects(score, x, z, own) for name, z in seen_inputs(x).items()}
                ways = torch.stack(list(seen.values())).nanmean(0)
            values = {
                "noise": shifted_iou(own, noisy, 0, 0),
                "shift": shifted_iou(own, shifted, down, right),
                "unseen": torch.stack(unseen).nanquantile(0.5, dim=0),
                "blur": seen["blur"],
                "ways": ways,
            }
            columns = {
                _column(measure, area): float(value)
                for measure, row in values.items()
                for area, value in zip(self.areas, row, strict=True)
            }
            falls = {
                "falls": fall_share(seen["blur"]),
                "falls_short": fall_share(seen["blur"].clamp(max=1.0)),
                "falls_ways": fall_share(ways),
                "falls_ways_short": fall_share(ways.clamp(max=1.0)),
            }
            rows.append([{**found.cost(), **columns, **falls}])
        return rows

    def _shift(self, key: str, field: FieldOfView) -> tuple[int, int]:
        """Return the shift of an image in places of the input, in a direction that its key decides."""
        places = max(1, round(scale_length(SHIFT, field.shape)))
        down, right = DIRECTIONS[np.random.default_rng((self.seed, _number(key), 1)).integers(len(DIRECTIONS))]
        return down * places, right * places

    def _top_class(self, x: Tensor) -> dict[str, int]:
        with self.network.frozen(self.seed) as run, torch.no_grad():
            top = int(run(x)[0].argmax())
        return {self.network.label(top): top}


def seen_inputs(x: Tensor) -> dict[str, Tensor]:
    """Return an input (1, C, H, W) destroyed in each of the ways of `perturbation="mixed"`, by name."""
    return {name: destroy(x, way) for name, way in split_ways(PERTURBATIONS["mixed"]).items()}


def unseen_inputs(network: Network, x: Tensor) -> list[Tensor]:
    """Return an input (1, C, H, W) destroyed as no method does it: black, white, a mosaic, and a wide blur."""
    if network.mean:
        black, white = network.normalise(torch.zeros_like(x)), network.normalise(torch.ones_like(x))
    else:
        black, white = torch.full_like(x, float(x.min())), torch.full_like(x, float(x.max()))
    return [black, white, destroy(x, MOSAIC), destroy(x, WIDE_BLUR)]


def kept_effects(score: Callable[[Tensor], Tensor], x: Tensor, destroyed: Tensor, masks: Tensor) -> Tensor:
    """Return the shares of the whole effect that masks (A, *S) keep: (A,); NaN if there is hardly an effect.

    Args:
        score: inputs (B, C, *S) -> margins (B,).
        x: (1, C, *S).
        destroyed: (1, C, *S).
        masks: (A, *S) bool.
    """
    kept = torch.where(masks.unsqueeze(1).to(x.device), x, destroyed)
    full, blank, *scores = score(torch.cat([x, destroyed, kept])).double().cpu()
    if not float(full - blank) > MIN_MARGIN_SPAN:
        return torch.full((len(masks),), torch.nan, dtype=torch.float64)
    return compute_effects(torch.stack(scores), blank, full, keeps=True)


def fall_share(effects: Tensor) -> float:
    """Return 1 if effects (A,) of rising areas fall by more than 5 % of the whole effect, else 0; NaN if unknown."""
    if bool(effects.isnan().any()):
        return float("nan")
    return float(find_falls(effects).max() > MAX_FALL)


def _column(measure: str, area: float) -> str:
    return f"{measure}_{100 * area:g}"


def _number(key: str) -> int:
    """Return a number for a key, the same in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
