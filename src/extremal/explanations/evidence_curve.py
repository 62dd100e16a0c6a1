"""`EvidenceCurve`: effects of one input against area."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvidenceCurve:
    """The evidence curve of one input: effects against area, 0 for nothing left and 1 for the whole effect."""

    areas: tuple[float, ...]  # (A,) rising
    soft: tuple[float, ...]  # (A,) of the masks as found
    binary: tuple[float, ...]  # (A,) of the masks cut to black and white
    unseen: tuple[float, ...]  # (A,) median over unseen perturbations
    control: tuple[float, ...]  # (A,) median over random masks
    control_best: tuple[float, ...]  # (A,) best random mask
