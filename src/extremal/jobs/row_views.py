"""Explanations of rows to look at: masks, scores and pictures, without an evaluation of the network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from extremal.explanations.certificate import Certificate
from extremal.explanations.explanation import Explanation
from extremal.explanations.settings import Settings
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.jobs.restore import (
    check_restorable,
    decode_scores,
    decode_trace,
    empty_like_run,
    find_regions,
    read_stability,
    read_stored_facts,
    restore_masks,
)
from extremal.jobs.row_inputs import complete_settings, open_input
from extremal.masking.domain import Domain
from extremal.masking.perturbations import destroy, split_ways, with_spacing
from extremal.networks.network import Network
from extremal.networks.torch_state import in_standard_modes

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowView:
    """One image of a run, to look at."""

    explanation: Explanation  # without agreement, which a row does not store: its `saliency` is that of its masks
    certificate: Certificate | None  # without its mask


@in_standard_modes
def view_rows(rows: Sequence[Row], network: Network, settings: Mapping[str, Any]) -> RowView:
    """Restore what a row stores of an image, and of its alternatives.

    The network prepares the image; it is not evaluated.

    Args:
        rows: of one image, of `rows.SCHEMA`.
        network: with the preprocessing of the run.
        settings: that all rows of the run share.

    Raises:
        ExtremalValueError: the image failed, is gone or has changed, or its rows are incomplete.
    """
    first, *others = sorted(rows, key=lambda row: row["alternative"] or 0)
    explanation = _restore(first, network, settings)
    alternatives = tuple(_restore(row, network, settings) for row in others)
    return RowView(replace(explanation, alternatives=alternatives), _read_certificate(first))


def _restore(row: Row, network: Network, settings: Mapping[str, Any]) -> Explanation:
    check_restorable(row)
    opened, settings = open_input(row, network, None), complete_settings(row, settings)
    network, x = opened.net, opened.x.cpu()
    shape, areas = tuple(row["input_shape"] or x.shape[2:]), tuple(row["areas"])
    within, units = find_regions(row, shape)
    validated, spacing = Settings.from_dict(settings), tuple(settings["spacing"])
    domain = Domain(shape, spacing, within, units)
    _, masks = restore_masks(row, settings["solver"], domain, empty_like_run(settings))
    with torch.no_grad():
        ways = split_ways(with_spacing(validated.perturbation, spacing))
        way = next((way for name, way in ways.items() if name not in row["left_out"]), next(iter(ways.values())))
        destroyed = destroy(x, way)
    stored: dict[str, Any] = {**decode_scores(row, torch.float32), **decode_trace(row, torch.float32)}
    target = tuple(row["group"]) if row["group"] is not None else row["target"]
    result = Explanation(
        areas=areas,
        masks=masks.float(),
        **stored,
        agreement=torch.zeros_like(masks[:, 0]),
        inputs=x,
        pictures=network.to_images_or_empty(x),
        destroyed=network.to_images_or_empty(destroyed),
        target=(target,),
        **read_stored_facts(row, settings, validated.game, opened.stack),
        within=None if within is None else within.unsqueeze(0),
        units=units,
    )
    return replace(result, stability=read_stability(row, result))


def _read_certificate(row: Row) -> Certificate | None:
    if row["certified_area"] is None:
        return None

    def read(name: str) -> float:
        value = row[name]
        return math.nan if value is None else float(value)

    return Certificate(
        area=row["certified_area"],
        mask=torch.zeros(1, 0),
        effect=row["certified_effect"],
        below_area=row["below_area"] or 0.0,
        below_effect=read("below_effect"),
        share=SUFFICIENT_EFFECT,
        unseen_effect=read("certified_unseen_effect"),
        below_unseen_effect=read("below_unseen_effect"),
        control_effect=read("certified_control_effect"),
    )
