"""Table rows of a run, one for each image and target, readable without this library.

A row holds what cannot be computed again: scores, and the parameters of the masks at the resolution of their lattice.
Settings that all rows of a run share are stored once, in its manifest (`Worker.provenance`). Images are not copied.
Every number is stored exactly: single precision fits into double precision, and parquet's encodings remove the rest.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.certificate import Certificate
from extremal.explanations.explanation import Explanation
from extremal.explanations.stability import Stability
from extremal.explanations.verdict import VerdictLabel
from extremal.file_checks import escape_surrogates
from extremal.jobs.parquet_files import OPTIONAL

Row = dict[str, Any]  # by the names of SCHEMA

DONE, FAILED = "done", "failed"
VERDICTS = (  # of an image
    VerdictLabel.SUFFICIENT,
    VerdictLabel.UNSTABLE,
    VerdictLabel.CHANCE,
    VerdictLabel.SUSPECT,
    VerdictLabel.INSUFFICIENT,
    FAILED,
)
EVALUATION_KINDS = ("gradients", "forwards", "evidence_gradients", "evidence_forwards")

_NUMBERS, _WORDS = pa.list_(pa.float64()), pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # of the image in its data set
        ("path", pa.string()),  # of the image file
        ("content_hash", pa.string()),  # SHA-256 of the image's file; of a series of DICOM files, of their hashes
        ("status", pa.string()),  # done, failed
        ("error", pa.string()),  # why it failed
        ("alternative", pa.int32()),  # 0: the first explanation; j: its j-th alternative
        ("target", pa.int64()),  # class index; null if the target is not a class
        ("group", pa.list_(pa.int64())),  # class indices, if the target is a group of classes; else null
        ("target_name", pa.string()),
        ("verdict", pa.string()),  # on the smallest sufficient area; insufficient if no area is sufficient
        ("smallest_area", pa.float64()),  # fraction of places; null if no area is sufficient, and so the next two
        ("smallest_effect", pa.float64()),  # effect of its cut mask
        ("unseen_effect", pa.float64()),  # median under unseen perturbations; null: they are uninformative
        ("certified_area", pa.float64()),  # smallest sufficient one that a search found; null: not requested, or none
        ("certified_effect", pa.float64()),  # effect of its mask
        pa.field("certified_unseen_effect", pa.float64(), metadata=OPTIONAL),  # median under unseen perturbations
        pa.field("certified_control_effect", pa.float64(), metadata=OPTIONAL),  # of the best random region of this area
        ("below_area", pa.float64()),  # largest insufficient area tried below it; 0: all that were tried are sufficient
        ("below_effect", pa.float64()),  # effect of the best mask found there; null if there is none
        pa.field("below_unseen_effect", pa.float64(), metadata=OPTIONAL),  # of that mask; null if its effect is too low
        ("stable_ious", _NUMBERS),  # (A,) median IoU with the masks of copies with noise; null: not requested
        ("core_shares", _NUMBERS),  # (A,) share of each mask's places that all copies keep
        (
            "stable_factor",
            pa.float64(),
        ),  # largest smallest area of the copies over the smallest; null: not all have one
        ("score_full", pa.float64()),  # of the input
        ("score_blank", pa.float64()),  # of the destroyed input
        ("areas", _NUMBERS),  # (A,) rising, fractions of places
        ("mask_areas", _NUMBERS),  # (A,) means of the masks
        ("scores", _NUMBERS),  # (A,) of the masks as optimised
        ("binary_scores", _NUMBERS),  # (A,) of the masks cut to black and white
        ("unseen_names", _WORDS),  # (P,) perturbations that the solver did not use
        ("left_out", _WORDS),  # ways of a mix of perturbations that have too little effect on this input
        ("unseen_scores", pa.list_(_NUMBERS)),  # (A, P) of the cut masks under these
        ("unseen_blank", _NUMBERS),  # (P,) of the input destroyed by these
        ("control_scores", pa.list_(_NUMBERS)),  # (A, R) of random masks
        ("verdicts", _WORDS),  # (A,) sufficient, insufficient, chance is enough, suspect, unstable
        ("reasons", _WORDS),  # (A,) one sentence each
        ("statuses", _WORDS),  # (A,) converged, stuck, not finite
        ("evaluations", pa.int64()),  # of the network, all kinds, copies too; this row's part of its batch
        ("counts", pa.struct([(name, pa.int64()) for name in EVALUATION_KINDS])),  # by kind, without those of copies
        ("seconds", pa.float64()),
        ("mirror", pa.bool_()),  # whether the mirrored input has the same score
        ("parameters", _NUMBERS),  # (A, 1, *lattice) of the masks, flattened; null: the masks were given
        ("parameters_shape", pa.list_(pa.int32())),
        ("input_shape", pa.list_(pa.int32())),  # (*S) of the masks, so that they can be rebuilt without the input
        pa.field("spacing", _NUMBERS, metadata=OPTIONAL),  # (*S) mm between places, of a volume; null: the run's
        ("trace_step", pa.list_(pa.int64())),  # (T,) step in which each mask of the trace was evaluated
        ("trace_area", _NUMBERS),  # (T,) its area
        ("trace_reward", _NUMBERS),  # (T,) its reward by the game
        ("trace_grey", _NUMBERS),  # (T,) its greyness
        ("thumbnail", pa.binary()),  # a small JPEG: the photograph under the smallest sufficient mask
        ("within", pa.list_(pa.bool_())),  # (*S) where masks were allowed, flattened; null: everywhere
        ("units", pa.list_(pa.int32())),  # (*S) the unit of each place, flattened; null: places by themselves
    ]
)


def build_row(
    explanation: Explanation,
    image: int,
    *,
    key: str,
    path: str | None,
    digest: str | None,
    seconds: float,
    alternative: int = 0,
    certificate: Certificate | None = None,
    thumbnail: bytes | None = None,
) -> Row:
    """Return one input of an explanation as a row of `SCHEMA`.

    Args:
        explanation: without alternatives, each of which has its own row.
        image: index of the input.
        key: of the image in its data set.
        path: of the image file; None: it is not a file.
        digest: `content_hash` of the image file; None: it is not a file.
        seconds: that the explanation took.
        alternative: 0, or the number of the alternative.
        certificate: of the smallest sufficient area; None: it was not searched for.
        thumbnail: a small JPEG.

    Raises:
        ExtremalValueError: the explanation has alternatives.
    """
    if explanation.alternatives:
        raise ExtremalValueError(
            f"a row must hold one explanation, got one with {len(explanation.alternatives)} alternatives; build a row "
            "for each: dataclasses.replace(explanation, alternatives=()) and explanation.alternatives"
        )
    parameters = None if explanation.fields is None else explanation.fields[image]
    target = explanation.target[image]
    counts = _split_counts(explanation.settings["evaluations"], image, len(explanation.masks))
    copies = 0 if explanation.stability is None else explanation.stability.evaluations
    copies = _split_counts({"copies": copies}, image, len(explanation.masks))["copies"]
    names = ("mask_areas", "scores", "binary_scores", "unseen_scores", "unseen_blank", "control_scores")
    scores = {name: getattr(explanation, name)[image].tolist() for name in ("score_full", "score_blank", *names)}
    return {
        **dict.fromkeys(SCHEMA.names),
        **_verdict_columns(explanation, image),
        **_certificate_columns(certificate),
        **_stability_columns(explanation.stability, image),
        **scores,
        "key": key,
        "path": path,
        "content_hash": digest,
        "status": DONE,
        "alternative": alternative,
        "thumbnail": thumbnail,
        "seconds": seconds,
        "target": target if isinstance(target, int) else None,
        "group": list(target) if isinstance(target, tuple) else None,
        "target_name": escape_surrogates(explanation.target_names[image]),
        "areas": list(explanation.areas),
        "unseen_names": list(explanation.unseen_names),
        "left_out": list(explanation.left_out[image]) if explanation.left_out else [],
        "statuses": [str(status) for status in explanation.status[image]],
        "evaluations": sum(counts.values()) + copies,
        "counts": counts,
        "mirror": explanation.settings["mirror"],
        "parameters": _flatten(parameters),
        "parameters_shape": None if parameters is None else list(parameters.shape),
        "input_shape": list(explanation.masks.shape[3:]),
        "spacing": list(explanation.settings.get("spacing", ())) or None,
        "trace_step": _flatten(explanation.trace_step),
        "trace_area": _flatten(explanation.trace_area[image]),
        "trace_reward": _flatten(explanation.trace_reward[image]),
        "trace_grey": _flatten(explanation.trace_grey[image]),
        "within": None if explanation.within is None else _flatten(explanation.within[image]),
        "units": _flatten(explanation.units),
    }


def build_failed_row(key: str, path: str | None, digest: str | None, error: str, seconds: float) -> Row:
    """Return the row of an image and target that could not be explained, with the reason."""
    values = {"key": key, "path": path, "content_hash": digest, "status": FAILED, "seconds": seconds}
    return {**dict.fromkeys(SCHEMA.names), **values, "error": escape_surrogates(error)}


def _flatten(values: Tensor | None) -> list[Any] | None:
    return None if values is None else values.flatten().tolist()


def _verdict_columns(explanation: Explanation, image: int) -> dict[str, Any]:
    """Return the verdicts in words, and the smallest sufficient area with its effects."""
    verdicts = explanation.verdict[image]
    words = {"verdicts": [verdict.label for verdict in verdicts], "reasons": [verdict.reason for verdict in verdicts]}
    smallest = explanation.smallest(image=image)
    if smallest is None:
        label = VerdictLabel.INSUFFICIENT if explanation.has_effect()[image] else VerdictLabel.SUSPECT
        return {**words, "verdict": label}
    column = explanation.areas.index(smallest.area)
    unseen = explanation.curve(image).unseen[column]
    return {
        **words,
        "verdict": verdicts[column].label,
        "smallest_area": smallest.area,
        "smallest_effect": smallest.effect,
        "unseen_effect": None if math.isnan(unseen) else unseen,
    }


def _certificate_columns(certificate: Certificate | None) -> dict[str, float | None]:
    if certificate is None:
        return {}
    values = {
        "certified_area": certificate.area,
        "certified_effect": certificate.effect,
        "certified_unseen_effect": certificate.unseen_effect,
        "certified_control_effect": certificate.control_effect,
        "below_area": certificate.below_area,
        "below_effect": certificate.below_effect,
        "below_unseen_effect": certificate.below_unseen_effect,
    }
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _stability_columns(stability: Stability | None, image: int) -> dict[str, Any]:
    if stability is None:
        return {}
    factor = stability.smallest_area_factors[image]
    return {
        "stable_ious": stability.median_iou[image].tolist(),
        "core_shares": stability.core_shares[image].tolist(),
        "stable_factor": None if factor is None or math.isinf(factor) else factor,
    }


def _split_counts(counts: Mapping[str, int], image: int, images: int) -> dict[str, int]:
    """Return the part of a batch's counts that belongs to one image; the parts differ by one at most.

    >>> [_split_counts({"forwards": 8}, image, 3)["forwards"] for image in range(3)]
    [3, 3, 2]
    """
    return {name: count // images + (image < count % images) for name, count in counts.items()}
