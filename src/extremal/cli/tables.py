"""What the command line tells of one photo in a terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from extremal.explanations.channels.class_ranking import ClassChannels
    from extremal.explanations.channels.explanation import ChannelExplanation
    from extremal.explanations.evaluations import Evaluations
    from extremal.explanations.explanation import Explanation
    from extremal.explanations.preflight.findings import Findings
    from extremal.explanations.preflight.plan import Plan
    from extremal.explanations.smallest_area import Certificate
    from extremal.networks.layers import Layer

VERDICT_COLOURS = {"sufficient": "green", "insufficient": "yellow", "suspect": "red"}
LEVEL_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def print_explanation(photo: str, explanation: "Explanation", files: dict[str, Any], certificate: "Certificate | None") -> None:
    """A table of the areas, what it comes to, and where the files are."""
    from extremal.report.text import alternatives_sentence, certificate_sentence

    table = Table("area", "score", "as found", "cut", "best random", "verdict")
    curve = explanation.curve()
    rows = zip(
        explanation.areas, explanation.scores[0].tolist(), curve.soft, curve.binary, curve.control_best, strict=True
    )
    for (area, score, *effects), verdict, status in zip(
        rows, explanation.verdict[0], explanation.status[0], strict=True
    ):
        word = f"{verdict} (stuck)" if status == "stuck" else str(verdict)
        table.add_row(
            f"{100 * area:g} %",
            f"{score:.2f}",
            *(f"{effect:.0%}".replace("%", " %") for effect in effects),
            Text(word, style=VERDICT_COLOURS.get(verdict.label, "")),
        )
    lines = [
        f"{photo}: {_target_text(explanation.target_names[0], explanation.target[0])}, "
        f"score {float(explanation.score_full[0]):.2f} whole, {float(explanation.score_blank[0]):.2f} destroyed",
        table,
        _smallest_area_sentence(explanation),
        *([certificate_sentence(certificate)] if certificate else []),
        *([alternatives_sentence(explanation)] if explanation.alternatives else []),
        "written:",
        *(f"  {path}" for path in (files["report"], files["figure"], files["explanation"], *files["masks"])),
    ]
    _print(lines)


def print_channels(photo: str, explanation: "ChannelExplanation", files: dict[str, Any]) -> None:
    """A table of the counts, what it comes to, and where the files are."""
    from extremal.report.channel_page import summarise_channels

    summary = summarise_channels(explanation)
    table = Table(
        Column("count"), "score", "as found", "exactly", "best random", "best ranking", Column("verdict", no_wrap=True)
    )
    for row in summary.rows:
        effects = (row.soft, row.binary, row.random_best, max(row.ranked))
        table.add_row(
            str(row.count),
            f"{row.score:.2f}",
            *(f"{effect:.0%}".replace("%", " %") for effect in effects),
            Text(str(row.verdict), style=VERDICT_COLOURS.get(row.verdict.label, "")),
        )
    heading = (
        f"{photo}: {summary.name} (class {explanation.target[0]}), layer {summary.layer} of {summary.total} channels, "
        f"score {summary.score_full:.2f} whole, {summary.score_blank:.2f} with the layer at zero"
    )
    paths = [files[name] for name in ("report", "figure", "explanation")]
    _print([heading, table, summary.smallest, "written:", *(f"  {path}" for path in (*paths, *files["pictures"]))])


def print_class_channels(found: "ClassChannels", top: int, files: dict[str, Any]) -> None:
    """The channels that a class needs most, and where all of them are."""
    table = Table("rank", "channel", "share of images", "95 % interval")
    for rank, channel in enumerate(found.ranking()[:top], start=1):
        low, high = float(found.low[channel]), float(found.high[channel])
        table.add_row(str(rank), str(channel), f"{float(found.mean[channel]):.2f}", f"{low:.2f} – {high:.2f}")
    counts = found.sets.sum(1)
    told = (
        f"{found.target_name} (class {found.target}), layer {found.layer}: {len(found.sets)} images, "
        f"smallest sufficient sets of {int(counts.min())} to {int(counts.max())} of {found.sets.shape[1]} channels"
    )
    paths = [files[name] for name in ("report", "figure", "table")]
    _print([told, table, "written:", *(f"  {path}" for path in (*paths, *files["pictures"]))])


def print_layers(layers: "list[Layer]") -> None:
    """A line a layer."""
    table = Table(Column("layer", overflow="fold"), "kind", "output", "split")
    for layer in layers:
        shape = " × ".join(map(str, layer.shape))
        told = layer.problem or ("bypassed: part of the answer goes round it" if layer.bypassed else "clean")
        table.add_row(layer.name, layer.kind, shape, told)
    _print([table, "use one with: extremal channels PHOTO --layer NAME"])


def print_plan(photo: str, plan: "Plan", folder: Path) -> None:
    """What a run would be asked, and what it would cost."""
    settings, one = plan.settings, plan.inputs[0]
    classes = Table("class", "score", "probability")
    for top in one.top:
        share = "" if top.probability is None else f"{100 * top.probability:.1f} %"
        classes.add_row(f"{top.name} (class {top.index})", f"{top.score:.2f}", share)
    left = "" if one.remaining is None else f", leaves {100 * one.remaining:.2g} % of its probability"
    areas = ", ".join(f"{100 * area:g} %" for area in plan.areas)
    chosen = (settings["game"], settings["perturbation"], settings["solver"]["name"], settings["score"])
    lines = [
        f"{photo}: {' × '.join(map(str, plan.shape))} as {settings['network']} takes it",
        classes,
        f"asked about: {_target_text(one.name, one.target)}",
        f"score: {one.full:.2f} whole, {one.blank:.2f} destroyed; destroying it takes {one.span:.2f} away{left}",
        f"run: {', '.join(chosen)}; areas {areas}; seed {settings['seed']}",
        f"on: {settings['device']}, {settings['dtype']}, {settings['threads']} threads",
        f"at once: {plan.rows_at_once} rows of the network, of {plan.rows} that fit ({_bytes(plan.row_bytes)} each)",
        f"evaluations: {_counts(plan.evaluations)}",
        f"expected: {_time(plan.seconds)}, {_bytes(plan.memory)} of memory for weights and gradients",
    ]
    if plan.refining:
        lines.append(f"smallest area: at most {_counts(plan.refining)}, {_time(plan.seconds_refining)} more")
    if one.span <= 0:
        lines.append("the destroyed input scores as high as the whole: `extremal doctor` tells what to change")
    _print([*lines, f"nothing was written; the results would be in {folder}"])


def print_findings(image: str, found: "Findings") -> None:
    """A line a check, and below it what to do."""
    about = f", asked about {found.target}" if found.target else ""
    lines: list[str | Text] = [f"{image}: {found.network}{about}"]
    for one in found.findings:
        level = (f"{one.level:<8}", LEVEL_COLOURS[one.level])
        lines.append(Text.assemble("  ", level, f" {one.name}: {one.measured}"))
        if one.remedy:
            lines.append(f"           to do: {one.remedy}")
    if found.skipped:
        lines.append(f"left out, as a problem comes before them: {', '.join(found.skipped)}")
    problems = sum(one.level == "problem" for one in found.findings)
    _print([*lines, f"problems: {problems}, warnings: {len(found.issues) - problems}"])


def _print(lines: list[Any]) -> None:
    out = Console()
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str | Text))


def _smallest_area_sentence(explanation: "Explanation") -> str:
    found, verdicts = explanation.smallest(), explanation.verdict[0]
    if found is None:
        return f"smallest sufficient area: none of these ({100 * explanation.areas[-1]:g} %: {verdicts[-1].reason})"
    verdict = verdicts[explanation.areas.index(found.area)]
    return f"smallest sufficient area: {100 * found.area:g} % ({verdict}: {verdict.reason})"


def _counts(found: "Evaluations | None") -> str:
    if found is None:
        return "not known of this solver"
    evidence = f"; {found.evidence_gradients} and {found.evidence_forwards} for the evidence"
    told = f"{found.gradients} forward and backward, {found.forwards} forward"
    return f"{told}{evidence if found.evidence_forwards else ''}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "a time that is not known"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.3g} MiB" if count < 2**30 else f"{count / 2**30:.3g} GiB"


def _target_text(name: str, target: int | None) -> str:
    """A class with its number; a question of another kind has none."""
    return name if target is None else f"{name} (class {target})"
