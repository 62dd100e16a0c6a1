"""Sentences on what was searched for beyond the explanation: the smallest area, copies with noise, alternatives."""

import math

from extremal.explanations.certificate import Certificate
from extremal.explanations.explanation import Explanation
from extremal.explanations.stability import Stability
from extremal.explanations.verdict import MIN_UNSEEN_EFFECT, format_below, is_supported
from extremal.report.text import area_percent, percent


def certificate_sentence(certificate: Certificate) -> str:
    r"""Describe the search for a smaller area: the smallest area that is enough, and the largest that is not.

    >>> import torch
    >>> certificate_sentence(Certificate(0.0734, torch.ones(1, 2, 2), 0.902, 0.0721, 0.884, 0.9)).replace("\xa0", " ")
    'Smallest area found: 7.34 % has 90 % of the effect; the best mask found at 7.21 % has 88 %.'
    """
    result = f"{area_percent(certificate.area)} has {percent(certificate.effect)} of the effect"
    chance = ""
    if certificate.control_effect >= certificate.share:
        chance = f" Chance is enough: a random region of this size has {percent(certificate.control_effect)}."
    if not certificate.below_area:
        return f"Smallest area found: {result}; every smaller area that was tried is also enough.{chance}"
    effect, _ = format_below(certificate.below_effect, certificate.share, percent)
    if not is_supported(certificate.below_unseen_effect, certificate.share):
        unseen, _ = format_below(certificate.below_unseen_effect, MIN_UNSEEN_EFFECT * certificate.share, percent)
        effect = f"{effect}, but only {unseen} under perturbations it was not made for"
    below = area_percent(certificate.below_area)
    return f"Smallest area found: {result}; the best mask found at {below} has {effect}.{chance}"


def stability_sentence(stability: Stability, image: int = 0) -> str:
    """Describe how much the smallest sufficient area differs between copies with one grey level of noise."""
    factor = stability.smallest_area_factors[image]
    copies = f"{stability.copies} copies" if stability.copies > 1 else "one copy"
    start = f"Over {copies} with one grey level of noise, "
    if factor is None:
        return f"{start}none of the computed areas is sufficient."
    if math.isinf(factor):
        count = int(stability.smallest_areas[image].isfinite().sum())
        return f"{start}a computed area is sufficient for only {count}."
    smallest = area_percent(float(stability.smallest_areas[image].min()))
    if factor == 1:
        return f"{start}the smallest sufficient area is {smallest} each time."
    largest = area_percent(float(stability.smallest_areas[image].max()))
    return f"{start}the smallest sufficient area lies between {smallest} and {largest}."


def alternatives_sentence(explanation: Explanation, image: int = 0) -> str:
    """Describe how many of the requested regions are sufficient and distinct; empty if only one was requested.

    Args:
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
    """
    requested, regions = 1 + len(explanation.alternatives), explanation.regions(image=image)
    if requested == 1:
        return ""
    if len(regions) < 2:
        return f"{'Only one' if regions else 'No'} sufficient region was found; {requested} were requested."
    areas = ", ".join(area_percent(region.coverage) for region in regions)
    return f"{len(regions)} sufficient regions with little overlap were found ({areas}); {requested} were requested."
