"""The page of the gallery, with every sentence that contains numbers; runs no networks."""

import re
from typing import Any

from gallery_entries import ENTRIES, PHOTOS, SECTIONS, Entry

from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.report.text import area_percent, percent

Record = dict[str, Any]
HEAD = f"""# Gallery

Runs of the embedded network (EfficientNet-Lite0, ImageNet) on photographs that scikit-image ships, including failures.
`examples/gallery.py` runs all of them and writes this page: every number comes from `gallery/numbers.json`, where the
script recorded it. Masks were computed at the default five areas, 2.5 to 40 %, with the default solver and, unless
stated otherwise, the default mix of perturbations.

Each picture shows the photograph as the network sees it, the smallest region that keeps 90 % of the effect (or the
largest if none does) with the rest faded, and the evidence curve with the shown area ringed. Blue outlines are kept,
red ones removed; effects beyond −100 and 200 % are drawn at these limits. [Reading the evidence](evidence.md) explains
the numbers.

To repeat a run, create the photographs (by Stéfan van der Walt, Rachel Michetti, SpaceX, NASA and Lav Varshney, all CC0
or in the public domain):

```console
for name in {" ".join(PHOTOS)}; do python examples/photograph.py $name $name.png; done
```

On one core the numbers are the same each time; another number of threads changes rounding and may lead to other masks
([why](theory.md#limitations))."""
TAIL = """These are counts over few photographs and one network, not estimates of how often you will meet each case. For
numbers over many images, see [Evaluation](evaluation.md)."""

# --- Sentences, from recorded numbers alone


def target_sentence(record: Record) -> str:
    """Return the class, its probability, and the effect to explain.

    >>> record = {"class": "cup", "probability": 0.021, "rank": 2, "classes": 1000}
    >>> record |= {"score_full": -4.2, "score_blank": -8}
    >>> target_sentence(record).replace(chr(160), " ")
    'Target: *cup*, probability 2.1 %, rank 2 of 1000. Destroying the image takes the margin from −4.20 to −8.00.'
    """
    value = record["probability"]
    probability = percent(value, 0 if value > 0.1 else 1) if value >= 0.001 else "less than 0.1\xa0%"
    action = "Setting the layer to zero" if "layer" in record else "Destroying the image"
    low, high = (f"{record[name]:.2f}".replace("-", "−") for name in ("score_blank", "score_full"))
    return (
        f"Target: *{record['class']}*, probability {probability}, rank {record['rank']} of {record['classes']}. "
        f"{action} takes the margin from {high} to {low}."
    )


def effect_sentence(row: Record, keeps: bool) -> str:
    """Return the effect of one region, compared with chance."""
    best, effect = percent(row["control_best"]), percent(row["binary"])
    if keeps:
        return (
            f"{area_percent(row['area'])} of the image keeps {effect} of the effect; "
            f"the best of {row['controls']} random regions of that size keeps {best}."
        )
    return (
        f"Without {area_percent(row['area'])} of the image, {effect} of the effect is lost; "
        f"without the best of {row['controls']} random regions of that size, {best}."
    )


def area_sentence(record: Record) -> str:
    """Return the smallest sufficient area, or the largest if none is sufficient."""
    row = shown(record)
    if row["binary"] >= SUFFICIENT_EFFECT:
        return effect_sentence(row, record["keeps"])
    sentence = lower(effect_sentence(row, record["keeps"]))
    return f"None of the {len(record['rows'])} areas is enough. The largest: {sentence}"


def verdict_sentence(row: Record) -> str:
    """Return the verdict with its reason."""
    return f"Verdict: **{row['verdict']}**, {typeset(row['reason'])}."


def regions_sentence(record: Record) -> str:
    """Return the sufficient regions of several explanations."""
    regions = ", ".join(f"{area_percent(r['area'])} that keeps {percent(r['effect'])}" for r in record["regions"])
    return f"{len(record['regions'])} of {record['answers']} explanations are sufficient and hardly overlap: {regions}."


def channels_sentence(record: Record) -> str:
    """Return the effect of a set of channels, compared with its controls."""
    row, least = shown(record), record["smallest"]
    *ranked, last = (f"by {name} {percent(value)}" for name, value in row["ranked"].items())
    channels = ", ".join(map(str, least["channels"]))
    return (
        f"{row['count']} of the {record['total']} channels of `{record['layer']}`, the others at zero, keep "
        f"{percent(row['binary'])} of the effect; the best random set of that size keeps "
        f"{percent(row['control_best'])}, the top channels {', '.join(ranked)} and {last}. "
        f"The smallest sufficient set found has {least['count']}: {channels}."
    )


def describe_curve(record: Record) -> str:
    """Return the evidence curve in words, for the alternative text."""
    unit = (lambda row: f"{row['count']} channels") if "layer" in record else (lambda row: area_percent(row["area"]))
    steps = ", ".join(f"{percent(row['binary'])} at {unit(row)}" for row in record["rows"])
    return f"effects of the cut masks are {steps}"


def lower(sentence: str) -> str:
    """Return a sentence that starts in lower case."""
    return sentence[0].lower() + sentence[1:]


def typeset(text: str) -> str:
    """Insert non-breaking spaces before percent signs, and minus signs."""
    return re.sub(r"(?<![\w])-(?=\d)", "−", text.replace(" %", "\xa0%"))


def shown(record: Record) -> Record:
    """Return the row shown: the chosen one, that of the smallest sufficient mask, or the last."""
    rows: list[Record] = record["rows"]
    if "shown" in record:
        return rows[record["shown"]]
    return next((row for row in rows if row["binary"] >= SUFFICIENT_EFFECT), rows[-1])


def sentences(record: Record) -> list[str]:
    """Return all sentences about one run."""
    if "layer" in record:
        return [target_sentence(record), channels_sentence(record), verdict_sentence(shown(record))]
    parts = [target_sentence(record), area_sentence(record)]
    if "answer" in record:
        parts.insert(1, f"Explanation {record['answer']}, outside those found before:")
    if record["regions"]:
        parts.append(regions_sentence(record))
    return [*parts, verdict_sentence(shown(record))]


# --- The page


def page(numbers: Record) -> str:
    """Return gallery.md, from the recorded numbers."""
    parts = [HEAD]
    for section, intro in SECTIONS.items():
        parts += [f"## {section}", intro]
        parts += [format_entry(entry, numbers["entries"][entry.name]) for entry in ENTRIES if entry.section == section]
    parts += ["## Frequency of verdicts", format_survey(numbers["survey"]), TAIL]
    return "\n\n".join(parts) + "\n"


def format_entry(entry: Entry, record: Record) -> str:
    """Return one entry: picture, sentences, command."""
    alt = f"{entry.scene}; {entry.region}; {describe_curve(record)}"
    words = f"{' '.join(sentences(record))}\n\n{entry.text}\n\n```console\n{entry.run.command}\n```"
    return f"### {entry.title}\n\n![{alt}](gallery/{entry.name}.jpg)\n\n{words}"


def format_survey(counts: Record) -> str:
    """Return the table of verdict counts over all photographs."""
    masks = sum(next(iter(counts.values())).values())
    lines = [f"| option | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    lines += [f"| {name} | {' | '.join(str(row.get(kind, 0)) for kind in KINDS)} |" for name, row in counts.items()]
    return (
        f"The top class of {len(PHOTOS)} photographs ({', '.join(PHOTOS)}), one option changed at a time: verdicts on "
        f"{masks} masks per row, {masks // len(PHOTOS)} areas of each photograph.\n\n" + "\n".join(lines)
    )


KINDS = {  # column -> prefix of the verdict and its reason
    "sufficient": "sufficient",
    "insufficient": "insufficient",
    "suspect: grey values": "suspect: grey values",
    "suspect: one perturbation": "suspect: only",
    "suspect: small effect": "suspect: the effect is too small",
    "chance is enough": "chance is enough",
}
