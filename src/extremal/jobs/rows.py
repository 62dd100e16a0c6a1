"""Rows of a table, one an image and target: read by hand, and an `Explanation` is rebuilt from one (`rebuilding.py`).

A row holds what cannot be computed again: scores, and the masks' fields at the resolution of their lattice. What is the
same for all rows of a run stands once beside them (`shared_settings`), and the picture stays where it is.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from extremal.errors import ExtremalValueError
from extremal.explanations.explanation import Explanation
from extremal.explanations.smallest_area import Certificate
from extremal.jobs.packing import packed, packed_shares

DONE, FAILED = "done", "failed"
PER_ROW_SETTINGS = ("evaluations", "mirror")  # settings that each row has for itself
EVALUATION_KINDS = ("gradients", "forwards", "evidence_gradients", "evidence_forwards")

_NUMBERS, _WORDS = pa.list_(pa.float64()), pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # of the picture in its data set
        ("path", pa.string()),  # of the picture
        ("content_hash", pa.string()),  # SHA-256 of the picture's file
        ("status", pa.string()),  # done, failed
        ("error", pa.string()),  # why it failed
        ("answer", pa.int32()),  # 0: the answer itself; j: its j-th alternative
        ("target", pa.int64()),  # class; −1 where a question of another kind was asked
        ("target_name", pa.string()),
        ("verdict", pa.string()),  # on the smallest area that is enough; insufficient where none is
        ("smallest_area", pa.float64()),  # share of places; null where none is enough, and so the next two
        ("smallest_effect", pa.float64()),  # share of the whole effect that its cut mask has
        ("unseen_effect", pa.float64()),  # the same under unseen perturbations, their median; null: they tell nothing
        ("certified_area", pa.float64()),  # found by bisection between the computed ones; null: not looked for, or none
        ("certified_effect", pa.float64()),  # share of the whole effect that its mask has
        ("below_area", pa.float64()),  # largest area tried below it that is not enough; 0: everything tried is
        ("below_effect", pa.float64()),  # of the best mask found there
        ("score_full", pa.float64()),  # of the whole input
        ("score_blank", pa.float64()),  # of the destroyed input
        ("areas", _NUMBERS),  # (A,) rising, shares of places
        ("mask_areas", _NUMBERS),  # (A,) the masks' true means
        ("scores", _NUMBERS),  # (A,) of the masks as found
        ("binary_scores", _NUMBERS),  # (A,) of the masks cut to black and white
        ("unseen_names", _WORDS),  # (P,) perturbations that the optimiser did not use
        ("unseen_scores", pa.list_(_NUMBERS)),  # (A, P) of the cut masks under these
        ("unseen_blank", _NUMBERS),  # (P,) of the input destroyed by these
        ("control_scores", pa.list_(_NUMBERS)),  # (A, R) of random masks
        ("verdicts", _WORDS),  # (A,) sufficient, insufficient, suspect
        ("reasons", _WORDS),  # (A,) one sentence each
        ("statuses", _WORDS),  # (A,) converged, stuck, not finite
        ("evaluations", pa.int64()),  # of the network, all kinds; of a batch this row's share
        ("counts", pa.struct([(name, pa.int64()) for name in EVALUATION_KINDS])),  # the same by kind
        ("seconds", pa.float64()),
        ("mirror", pa.bool_()),  # whether the mirrored input asks the same question
        ("fields", pa.binary()),  # (A, 1, *lattice) of which the masks are made, packed (`packing`)
        ("fields_shape", pa.list_(pa.int32())),
        ("input_shape", pa.list_(pa.int32())),  # (*S) of the masks, so that they are made of fields without the input
        ("trace_step", pa.binary()),  # (T,) int64 in which step each mask on the way was evaluated, packed
        ("trace_area", pa.binary()),  # (T,) its area, packed as shares
        ("trace_reward", pa.binary()),  # (T,) what the game paid for it, packed
        ("trace_grey", pa.binary()),  # (T,) its greyness, packed as shares
        ("thumbnail", pa.binary()),  # a small JPEG: the photograph under the smallest mask that is enough
        ("within", pa.binary()),  # (*S) bool: where masks were allowed, packed; null: everywhere
        ("units", pa.binary()),  # (*S) int32: the unit of each place, packed; null: places by themselves
    ]
)


def run_settings(explanation: Explanation) -> dict[str, Any]:
    """The settings that are the same in all rows of a run; they belong into its manifest."""
    return {name: value for name, value in explanation.settings.items() if name not in PER_ROW_SETTINGS}


def row(
    explanation: Explanation,
    image: int,
    *,
    key: str,
    path: str | None,
    digest: str | None,
    seconds: float,
    answer: int = 0,
    certificate: Certificate | None = None,
    thumbnail: bytes | None = None,
) -> dict[str, Any]:
    """One input of an explanation as a row of `SCHEMA`.

    Args:
        explanation: without alternatives, each of which makes a row of its own.
        image: which of its inputs.
        key: of the picture in its data set.
        path: of the picture; None where it is no file.
        digest: `content_hash` of the picture; None likewise.
        seconds: that it took.
        answer: 0, or which alternative this is.
        certificate: of its smallest sufficient area, where it was looked for.
        thumbnail: a JPEG to look at.

    Raises:
        ExtremalValueError: the explanation has alternatives.
    """
    if explanation.alternatives:
        raise ExtremalValueError(
            f"a row holds one answer, got an explanation with {len(explanation.alternatives)} alternatives; make a row "
            "of each: dataclasses.replace(explanation, alternatives=()) and explanation.alternatives"
        )
    fields = None if explanation.fields is None else explanation.fields[image]
    counts = _split_counts(explanation.settings["evaluations"], image, len(explanation.masks))
    listed = ("mask_areas", "scores", "binary_scores", "unseen_scores", "unseen_blank", "control_scores")
    values = {name: getattr(explanation, name)[image].tolist() for name in ("score_full", "score_blank", *listed)}
    return {
        **dict.fromkeys(SCHEMA.names),
        **_verdict_columns(explanation, image),
        **_certificate_columns(certificate),
        **values,
        "key": key,
        "path": path,
        "content_hash": digest,
        "status": DONE,
        "answer": answer,
        "thumbnail": thumbnail,
        "seconds": seconds,
        "target": explanation.target[image],
        "target_name": explanation.target_names[image],
        "areas": list(explanation.areas),
        "unseen_names": list(explanation.unseen_names),
        "statuses": [str(status) for status in explanation.status[image]],
        "evaluations": sum(counts.values()),
        "counts": counts,
        "mirror": explanation.settings["mirror"],
        "fields": None if fields is None else packed(fields),
        "fields_shape": None if fields is None else list(fields.shape),
        "input_shape": list(explanation.masks.shape[3:]),
        "trace_step": packed(explanation.trace_step),
        "trace_area": packed_shares(explanation.trace_area[image], len(explanation.areas)),
        "trace_reward": packed(explanation.trace_reward[image].to(explanation.masks.dtype)),
        "trace_grey": packed_shares(explanation.trace_grey[image], len(explanation.areas)),
        "within": None if explanation.within is None else packed(explanation.within),
        "units": None if explanation.units is None else packed(explanation.units.int()),
    }


def failed_row(key: str, path: str | None, digest: str | None, error: str, seconds: float) -> dict[str, Any]:
    """The row of an image and target that came to nothing, with the reason."""
    told = {"key": key, "path": path, "content_hash": digest, "status": FAILED, "error": error, "seconds": seconds}
    return dict.fromkeys(SCHEMA.names) | told


def _verdict_columns(explanation: Explanation, image: int) -> dict[str, Any]:
    """The columns that say what was found, in words and by the smallest area that is enough."""
    verdicts = explanation.verdict[image]
    words = {"verdicts": [verdict.word for verdict in verdicts], "reasons": [verdict.reason for verdict in verdicts]}
    enough = explanation.smallest(image=image)
    if enough is None:
        return {**words, "verdict": "insufficient"}
    column = explanation.areas.index(enough.area)
    unseen = explanation.curve(image).unseen[column]
    return {
        **words,
        "verdict": verdicts[column].word,
        "smallest_area": enough.area,
        "smallest_effect": enough.effect,
        "unseen_effect": None if math.isnan(unseen) else unseen,
    }


def _certificate_columns(certificate: Certificate | None) -> dict[str, float]:
    if certificate is None:
        return {}
    return {
        "certified_area": certificate.area,
        "certified_effect": certificate.effect,
        "below_area": certificate.below_area,
        "below_effect": certificate.below_effect,
    }


def _split_counts(counts: Mapping[str, int], image: int, images: int) -> dict[str, int]:
    """What of a batch's counts is one image's: shares that differ by one at most, and sum to the whole.

    >>> [_split_counts({"forwards": 8}, image, 3)["forwards"] for image in range(3)]
    [3, 3, 2]
    """
    return {name: count // images + (image < count % images) for name, count in counts.items()}
