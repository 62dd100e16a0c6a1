"""Print results as tables in a terminal."""

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from extremal.explanations.percentages import format_percent
from extremal.file_checks import to_printable

if TYPE_CHECKING:
    from extremal.explanations.certificate import Certificate
    from extremal.explanations.channels.class_ranking import ClassChannels
    from extremal.explanations.channels.explanation import ChannelExplanation
    from extremal.explanations.explanation import Explanation
    from extremal.explanations.preflight.findings import Findings
    from extremal.networks.layers import Layer
    from extremal.scores.class_group import ResolvedClass

VERDICT_COLOURS = {
    "sufficient": "green",
    "insufficient": "yellow",
    "suspect": "red",
    "chance is enough": "red",
    "unstable": "red",
}
LEVEL_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def print_explanation(
    image: str, explanation: "Explanation", files: dict[str, Any], certificate: "Certificate | None", minimal: str
) -> None:
    """Print a table of the areas, a summary, and the paths of the files.

    Args:
        image: path of the image.
        explanation: of it.
        files: paths of the result, as returned by `write_result`.
        certificate: of the smallest sufficient area.
        minimal: sentence on the minimal region; empty if there is none.
    """
    from extremal.explanations.verdict import Status
    from extremal.report.sentences import alternatives_sentence, certificate_sentence, stability_sentence

    stability = explanation.stability
    measured = [] if stability is None else ["stable IoU", "core"]
    table = Table("area", "score", "as found", "cut", "best random", *measured, Column("verdict", no_wrap=True))
    curve = explanation.curve()
    rows = zip(
        explanation.areas, explanation.scores[0].tolist(), curve.soft, curve.binary, curve.control_best, strict=True
    )
    judged = zip(rows, explanation.verdict[0], explanation.status[0], strict=True)
    for k, ((area, score, *effects), verdict, status) in enumerate(judged):
        stable = (
            []
            if stability is None
            else [f"{float(stability.median_iou[0, k]):.2f}", format_percent(float(stability.core_shares[0, k]))]
        )
        label = f"{verdict} (stuck)" if status is Status.STUCK else str(verdict)
        table.add_row(
            area_text(area),
            score_text(score),
            *map(format_percent, effects),
            *stable,
            Text(label, style=VERDICT_COLOURS.get(verdict.label, "")),
        )
    lines = [
        f"{image}: {target_text(explanation.target_names[0], explanation.target[0])}, "
        f"score {score_text(float(explanation.score_full[0]))} whole, "
        f"{score_text(float(explanation.score_blank[0]))} destroyed",
        *list_cautions(explanation),
        table,
        _smallest_area_sentence(explanation),
        *([certificate_sentence(certificate)] if certificate else []),
        *([stability_sentence(stability)] if stability else []),
        *([minimal] if minimal else []),
        *([alternatives_sentence(explanation)] if explanation.alternatives else []),
        *path_lines(files["report"], files["figure"], files["explanation"], *files["masks"]),
    ]
    print_lines(lines)


def print_channels(image: str, explanation: "ChannelExplanation", files: dict[str, Any], minimal: str) -> None:
    """Print a table of the counts, a summary, and the paths of the files.

    Args:
        image: path of the image.
        explanation: of it.
        files: paths of the result, as returned by `write_channel_result`.
        minimal: sentence on the minimal set; empty if there is none.
    """
    from extremal.report.channel_page import summarise_channels

    summary = summarise_channels(explanation)
    table = Table(
        Column("count"), "score", "as found", "exactly", "best random", "best ranking", Column("verdict", no_wrap=True)
    )
    for row in summary.rows:
        table.add_row(
            str(row.count),
            score_text(row.score),
            *map(format_percent, (row.soft, row.binary, row.random_best, max(row.ranked))),
            Text(str(row.verdict), style=VERDICT_COLOURS.get(row.verdict.label, "")),
        )
    target = target_text(summary.name, explanation.target[0])
    heading = (
        f"{image}: {target}, layer {summary.layer} of {summary.total} channels, "
        f"score {score_text(summary.score_full)} whole, {score_text(summary.score_blank)} with the layer at zero"
    )
    paths = [files[name] for name in ("report", "figure", "explanation")]
    sentences = [sentence for sentence in (summary.headline, summary.smallest, summary.caution, minimal) if sentence]
    print_lines([heading, table, *sentences, *path_lines(*paths, *files["pictures"])])


def print_class_channels(ranking: "ClassChannels", top: int, files: dict[str, Any]) -> None:
    """Print the channels that a class needs most often, and the paths of the files."""
    from extremal.report.text import weights_caution

    table = Table("rank", "channel", "share of images", "95 % interval")
    for rank, channel in enumerate(ranking.ranking()[:top], start=1):
        low, high = float(ranking.low[channel]), float(ranking.high[channel])
        table.add_row(str(rank), str(channel), f"{float(ranking.mean[channel]):.2f}", f"{low:.2f} – {high:.2f}")
    counts = ranking.sets.sum(1)
    heading = (
        f"{target_text(ranking.target_name, ranking.target)}, layer {ranking.layer}: {len(ranking.sets)} images, "
        f"smallest sufficient sets of {int(counts.min())} to {int(counts.max())} of {ranking.sets.shape[1]} channels"
    )
    paths = [files[name] for name in ("report", "figure", "table")]
    doubts = [caution] if (caution := weights_caution(ranking.settings)) else []
    print_lines([heading, *doubts, table, *path_lines(*paths, *files["pictures"])])


def print_layers(layers: "list[Layer]", pattern: str, total: int) -> None:
    """Print one row per layer; a column on splitting if it says something.

    Args:
        layers: to print.
        pattern: that their names contain; empty: they are the stages, or all.
        total: number of layers of the network.
    """
    if not layers:
        typer.echo(f"no layer contains {pattern!r}; `extremal layers --all` lists all {total}", err=True)
        return
    is_mixed = not all(layer.can_split_cleanly for layer in layers)
    table = Table(Column("layer", overflow="fold"), "kind", "output", *(["whole answer passes"] if is_mixed else []))
    for layer in layers:
        shape = " × ".join(map(str, layer.shape))
        split = f"cannot be used: {layer.problem}" if layer.problem else "no" if layer.bypassed else "yes"
        table.add_row(layer.name, layer.kind, shape, *([split] if is_mixed else []))
    lines: list[Any] = [table]
    if any(layer.bypassed for layer in layers):
        lines.append("no: part of the answer goes round the layer, e.g. by a shortcut; masks do not affect that part")
    lines.append("use one with: extremal channels IMAGE --layer NAME")
    if len(layers) < total:
        lines.append(f"{len(layers)} of {total} layers; more with: extremal layers PATTERN, extremal layers --all")
    print_lines(lines)


def print_findings(image: str, findings: "Findings") -> None:
    """Print one line per check, followed by its remedy."""
    target = f", target {findings.target}" if findings.target else ""
    lines: list[str | Text] = [f"{image}: {findings.network}{target}"]
    if findings.reading:
        lines += [f"  {sentence}" for sentence in findings.reading.sentences]
    for finding in findings.findings:
        level = (f"{finding.level:<8}", LEVEL_COLOURS[finding.level])
        lines.append(Text.assemble("  ", level, f" {finding.name}: {finding.measured}"))
        if finding.remedy:
            lines.append(f"           to do: {finding.remedy}")
    if findings.skipped:
        lines.append(f"skipped because of a problem: {', '.join(findings.skipped)}")
    n_problems = sum(finding.level == "problem" for finding in findings.findings)
    print_lines([*lines, f"problems: {n_problems}, warnings: {len(findings.issues) - n_problems}"])


def print_lines(lines: list[Any]) -> None:
    """Print texts and tables one below another."""
    out = Console()
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str | Text))


def path_lines(*paths: str) -> list[str]:
    """Return the lines that list the written files."""
    return ["written:", *(f"  {to_printable(path)}" for path in paths)]


def _smallest_area_sentence(explanation: "Explanation") -> str:
    smallest, verdicts = explanation.smallest(), explanation.verdict[0]
    if smallest is None:
        return f"smallest sufficient area: none of these ({area_text(explanation.areas[-1])}: {verdicts[-1].reason})"
    verdict = verdicts[explanation.areas.index(smallest.area)]
    return f"smallest sufficient area: {area_text(smallest.coverage)} ({verdict}: {verdict.reason})"


def list_cautions(explanation: "Explanation") -> list[str]:
    """Return the reasons to doubt the network's answer, with spaces at which a line may break."""
    from extremal.report.text import list_network_cautions

    return [caution.replace("\N{NO-BREAK SPACE}", " ") for caution in list_network_cautions(explanation)]


def score_text(score: float) -> str:
    """Return a score with two decimal places."""
    return f"{score:.2f}".replace("-", "−")


def area_text(area: float) -> str:
    """Return an area in percent."""
    return f"{100 * area:g} %"


def target_text(name: str, target: "ResolvedClass | None") -> str:
    """Return a class with its index; groups and other targets have none."""
    return f"{name} (class {target})" if isinstance(target, int) else name
