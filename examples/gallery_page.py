"""The page of the gallery, and every sentence that is made of numbers; nothing is run here."""

import re
from typing import Any

from gallery_entries import ENTRIES, PHOTOS, SECTIONS, Entry

from extremal.explanations.evidence import N_CONTROLS
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.report.text import area_percent, percent

Record = dict[str, Any]
HEAD = f"""# Gallery

Runs of the embedded network (EfficientNet-Lite0, ImageNet) on photographs that scikit-image ships, failures included.
`examples/gallery.py` runs all of them and writes this page: every number comes from `gallery/numbers.json`, where the
script recorded it. Masks were sought at five areas, 2.5 to 40 %, with the defaults where the command says nothing else.

Each picture shows the photograph as the network sees it, the smallest region that keeps 90 % of the effect (the largest
where none does) with the rest pale, and the evidence curve, the shown area ringed. Blue outlines are kept, red ones
removed; effects further out than −100 and 200 % are drawn at these. What the numbers mean is told
in [Reading the evidence](evidence.md).

The photographs, to repeat a run (by Stéfan van der Walt, Rachel Michetti, SpaceX, NASA and Lav Varshney, all CC0 or in
the public domain):

```console
for name in {" ".join(PHOTOS)}; do python examples/photograph.py $name $name.png; done
```

On one core the numbers are the same each time; another number of threads rounds otherwise and may lead to other masks
([why](theory.md#what-is-not-promised))."""
TAIL = """These are counts over few photographs and one network, no estimate of how often you will meet each. Numbers
over many pictures stand in [Evaluation](evaluation.md)."""

# --- Sentences, from recorded numbers alone


def named(record: Record) -> str:
    """What was asked, what the network gives it, and what there is to explain.

    >>> told = {"class": "cup", "probability": 0.021, "rank": 2, "classes": 1000, "score_full": -4.2, "score_blank": -8}
    >>> named(told).replace(chr(160), " ")
    'Asked: *cup*, which the network gives 2.1 %, rank 2 of 1000. Destroying all takes the margin from −4.20 to −8.00.'
    """
    share = record["probability"]
    given = percent(share, 0 if share > 0.1 else 1) if share >= 0.001 else "less than 0.1\xa0%"
    done = "Setting the layer to zero" if "layer" in record else "Destroying all"
    low, high = (f"{record[name]:.2f}".replace("-", "−") for name in ("score_blank", "score_full"))
    return (
        f"Asked: *{record['class']}*, which the network gives {given}, rank {record['rank']} of {record['classes']}. "
        f"{done} takes the margin from {high} to {low}."
    )


def kept(row: Record, keeps: bool) -> str:
    """What one region does, beside chance."""
    best, effect = percent(row["control_best"]), percent(row["binary"])
    if keeps:
        return (
            f"{area_percent(row['area'])} of the picture keeps {effect} of the effect; "
            f"the best of {N_CONTROLS} random regions of that size keeps {best}."
        )
    return (
        f"Without {area_percent(row['area'])} of the picture {effect} of the effect is lost; "
        f"without the best of {N_CONTROLS} random regions of that size {best}."
    )


def found(record: Record) -> str:
    """The smallest sufficient area, or that there is none."""
    row = shown(record)
    if row["binary"] >= SUFFICIENT_EFFECT:
        return kept(row, record["keeps"])
    return f"None of the {len(record['rows'])} areas is enough. The largest: {lower(kept(row, record['keeps']))}"


def judged(row: Record) -> str:
    """The verdict with its reason, as the library words it."""
    return f"Verdict: **{row['verdict']}**, {spaced(row['reason'])}."


def elsewhere(record: Record) -> str:
    """Regions that are enough each by itself."""
    regions = ", ".join(f"{area_percent(r['area'])} that keeps {percent(r['effect'])}" for r in record["regions"])
    return f"{len(record['regions'])} of {record['answers']} answers are enough and hardly overlap: {regions}."


def channelled(record: Record) -> str:
    """What a set of channels does, beside its controls."""
    row, least = shown(record), record["smallest"]
    *ranked, last = (f"by {name} {percent(value)}" for name, value in row["ranked"].items())
    channels = ", ".join(map(str, least["channels"]))
    return (
        f"{row['count']} of the {record['total']} channels of `{record['layer']}`, the others at zero, keep "
        f"{percent(row['binary'])} of the effect; the best random set of that size keeps "
        f"{percent(row['control_best'])}, the top channels {', '.join(ranked)} and {last}. "
        f"The smallest set that was found to be enough has {least['count']}: {channels}."
    )


def curve_told(record: Record) -> str:
    """The evidence curve in words, for those who do not see it."""
    unit = (lambda row: f"{row['count']} channels") if "layer" in record else (lambda row: area_percent(row["area"]))
    steps = ", ".join(f"{percent(row['binary'])} at {unit(row)}" for row in record["rows"])
    return f"effects of the cut masks are {steps}"


def lower(sentence: str) -> str:
    """A sentence that goes on after a colon."""
    return sentence[0].lower() + sentence[1:]


def spaced(text: str) -> str:
    """Percent signs that do not break off, and a true minus."""
    return re.sub(r"(?<![\w])-(?=\d)", "−", text.replace(" %", "\xa0%"))


def shown(record: Record) -> Record:
    """The row that is told of: that of the smallest sufficient mask, of the largest where none is, or a chosen one."""
    rows: list[Record] = record["rows"]
    if "shown" in record:
        return rows[record["shown"]]
    return next((row for row in rows if row["binary"] >= SUFFICIENT_EFFECT), rows[-1])


def sentences(record: Record) -> list[str]:
    """Everything that is said of one run from its numbers."""
    if "layer" in record:
        return [named(record), channelled(record), judged(shown(record))]
    told = [named(record), found(record)]
    if "answer" in record:
        told.insert(1, f"Answer {record['answer']}, sought where those before it are not:")
    if record["regions"]:
        told.append(elsewhere(record))
    return [*told, judged(shown(record))]


# --- The page


def page(numbers: Record) -> str:
    """gallery.md, from the recorded numbers."""
    parts = [HEAD]
    for section, intro in SECTIONS.items():
        parts += [f"## {section}", intro]
        parts += [entry_told(entry, numbers["entries"][entry.name]) for entry in ENTRIES if entry.section == section]
    parts += ["## How often", survey_told(numbers["survey"]), TAIL]
    return "\n\n".join(parts) + "\n"


def entry_told(entry: Entry, record: Record) -> str:
    """One entry: picture, sentences, command."""
    alt = f"{entry.scene}; {entry.region}; {curve_told(record)}"
    words = f"{' '.join(sentences(record))}\n\n{entry.text}\n\n```console\n{entry.asked.command}\n```"
    return f"### {entry.title}\n\n![{alt}](gallery/{entry.name}.jpg)\n\n{words}"


def survey_told(counts: Record) -> str:
    """How often each verdict came up over all photographs."""
    masks = sum(next(iter(counts.values())).values())
    lines = [f"| asked | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    lines += [f"| {name} | {' | '.join(str(row.get(kind, 0)) for kind in KINDS)} |" for name, row in counts.items()]
    return (
        f"The top class of {len(PHOTOS)} photographs ({', '.join(PHOTOS)}), one option changed at a time: verdicts on "
        f"{masks} masks a line, {masks // len(PHOTOS)} areas of each photograph.\n\n" + "\n".join(lines)
    )


KINDS = {  # columns, and how a verdict with its reason begins that belongs there
    "sufficient": "sufficient",
    "insufficient": "insufficient",
    "suspect: grey values": "suspect: grey values",
    "suspect: chance": "suspect: a random region",
    "suspect: one perturbation": "suspect: only",
}
