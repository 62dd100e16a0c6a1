"""Two runs over the same images, made up without a network."""

from pathlib import Path

from extremal.explanations.explanation import Explanation
from support import runs

COUNT = 12

ExplanationPair = tuple[Explanation, Explanation]  # in the first and in the second run


def image_key(index: int) -> str:
    """The key of an image."""
    return f"picture-{index:02d}.jpg"


def make_explanation_pair(index: int) -> ExplanationPair:
    """Explanations of one image: every third has equal masks in both runs, every third similar ones."""
    level, target = 1.0 + 0.1 * index, index % 3
    first = runs.make_explanation(index, effect_factor=level, target=target)
    kind = index % 3
    if kind == 0:
        return first, first
    similar = first if kind == 1 else None
    second = runs.make_explanation(100 + index, effect_factor=2.5 - level, target=target, similar_to=similar)
    return first, second


def make_explanation_pairs() -> list[ExplanationPair]:
    """Explanations of `COUNT` images."""
    return [make_explanation_pair(index) for index in range(COUNT)]


def write_run_pair(folder: Path, explanations: list[ExplanationPair]) -> list[Path]:
    """Write two runs with the same images but one each; another image failed in the second run."""
    tables = []
    for side, name in enumerate(("before", "after")):
        rows = [
            runs.make_row(both[side], image_key(index), thumbnail=runs.make_jpeg(side))
            for index, both in enumerate(explanations)
        ]
        rows.append(runs.make_row(explanations[0][0], f"only {name}"))
        tables.append((rows, runs.make_settings(weights=str(side) * 64, seed=side)))
    second = tables[1][0]
    second[5] = {**second[5], "status": "failed", "error": "it broke", "verdict": None}
    second.reverse()  # images are paired by key, not by position
    return [runs.write_run(folder / name, *table) for name, table in zip(("before", "after"), tables, strict=True)]
