"""Print what a run, or several, would explain and cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from extremal.cli.tables import area_text, print_lines, score_text, target_text
from extremal.cli.text import duration

if TYPE_CHECKING:
    from extremal.explanations.evaluations import Evaluations
    from extremal.explanations.preflight.bundle_plan import BundlePlan
    from extremal.explanations.preflight.plan import Plan


def print_plan(image: str, plan: "Plan", folder: Path, copies: int = 0, minimal_budget: int = 0) -> None:
    """Print what a run would explain, and what it would cost.

    Args:
        image: path of the image.
        plan: of the run.
        folder: of the results.
        copies: explained for the stability.
        minimal_budget: evaluations to reduce the sufficient region; 0: it is not reduced.
    """
    first = plan.inputs[0]
    classes = Table("class", "score", "probability")
    for top in first.top:
        probability = "" if top.probability is None else f"{100 * top.probability:.1f} %"
        classes.add_row(f"{top.name} (class {top.index})", score_text(top.score), probability)
    remaining = "" if first.remaining is None else f", leaves {100 * first.remaining:.2g} % of its probability"
    lines = [
        *_input_lines(image, plan),
        classes,
        f"target: {target_text(first.name, first.target)}",
        f"score: {score_text(first.full)} whole, {score_text(first.blank)} destroyed; destroying it takes "
        f"{score_text(first.span)} away"
        f"{remaining}",
        *_run_lines(plan, plan.settings["game"], plan.settings["score"]),
        *_cost_lines(plan),
    ]
    if plan.refining:
        counts = _evaluations_text(plan.refining)
        lines.append(f"smallest area: at most {counts}, {_duration(plan.seconds_refining)} more")
    if copies:
        seconds = None if plan.seconds is None else copies * plan.seconds
        lines.append(f"stability: {copies} times these evaluations, {_duration(seconds)} more")
    if minimal_budget:
        lines.append(f"minimal region: at most {minimal_budget} forward")
    if first.span <= 0:
        lines.append(
            "the destroyed input scores as high as the whole: run `extremal doctor` to find out what to change"
        )
    print_lines([*lines, f"nothing was written; the results would be in {folder}"])


def print_bundle_plan(image: str, plan: "BundlePlan", folder: Path) -> None:
    """Print the runs that would be started, and what all of them would cost.

    Args:
        image: path of the image.
        plan: of the runs.
        folder: of the results.
    """
    from extremal.explanations.evaluations import Evaluations

    first = next(iter(plan.parts.values()))
    table = Table("run", "game", "score", "destroyed", "forward and backward", "forward")
    for name, part in plan.parts.items():
        target = part.inputs[0]
        scores = (score_text(target.full), score_text(target.blank))
        table.add_row(Text(name), part.settings["game"], *scores, *_count_passes(part.evaluations))
    lines: list[Any] = [*_input_lines(image, first), table, *_run_lines(first, "", "")]
    if plan.without_effect:
        lines.append(f"the same without the picture, and not explained: {', '.join(plan.without_effect)}")
    if plan.more != Evaluations():
        lines.append(f"besides these runs: {_evaluations_text(plan.more)}")
    print_lines([*lines, *_cost_lines(plan), f"nothing was written; the results would be in {folder}"])


def _input_lines(image: str, plan: "Plan") -> list[str]:
    """Return what is explained, and how input and output of the network are understood."""
    from extremal.explanations.display import network_text

    shape = " × ".join(map(str, plan.shape))
    return [f"{image}: {shape} as input of {network_text(plan.settings)}", *plan.reading.sentences]


def _run_lines(plan: "Plan", game: str, score: str) -> list[str]:
    """Return the settings of a run, where it runs, and how much of it at once."""
    settings, areas = plan.settings, ", ".join(map(area_text, plan.areas))
    names = (game, _perturbation_text(settings["perturbation"]), settings["solver"]["name"], score)
    return [
        f"run: {', '.join(name for name in names if name)}; areas {areas}; seed {settings['seed']}",
        f"on: {settings['device']}, {settings['dtype']}, {settings['threads']} threads",
        f"at once: {plan.rows_at_once} rows of the network, of {plan.rows} that fit ({_bytes(plan.row_bytes)} each)",
    ]


def _cost_lines(plan: "Plan | BundlePlan") -> list[str]:
    """Return the evaluations, the time and the memory of a run, or of several."""
    return [
        f"evaluations: {_evaluations_text(plan.evaluations)}",
        f"expected: {_duration(plan.seconds)}, {_bytes(plan.memory)} of memory for weights and gradients",
    ]


def _evaluations_text(evaluations: "Evaluations | None") -> str:
    if evaluations is None:
        return "unknown for this solver"
    counts = f"{evaluations.gradients} forward and backward, {evaluations.forwards} forward"
    if not evaluations.evidence_forwards:
        return counts
    evidence = f"{evaluations.evidence_gradients} and at most {evaluations.evidence_forwards} for the evidence"
    return f"{counts}; {evidence}"


def _count_passes(evaluations: "Evaluations | None") -> tuple[str, str]:
    """Return the numbers of passes of a run and its evidence, with and without a backward pass."""
    if evaluations is None:
        return "unknown", "unknown"
    return (
        str(evaluations.gradients + evaluations.evidence_gradients),
        str(evaluations.forwards + evaluations.evidence_forwards),
    )


def _perturbation_text(plain: str | list[str]) -> str:
    """Return the perturbation of a run's settings: the text of one, the name mixed, or the texts of a mix."""
    from extremal.masking.perturbations import PERTURBATIONS, split_ways

    if isinstance(plain, str):
        return plain
    return "mixed" if plain == [repr(way) for way in split_ways(PERTURBATIONS["mixed"]).values()] else " + ".join(plain)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    return duration(seconds)


def _bytes(count: int) -> str:
    return f"{count / 2**20:.3g} MiB" if count < 2**30 else f"{count / 2**30:.3g} GiB"
