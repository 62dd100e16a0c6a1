"""Words for files, and for an answer among others about the same class of the same image."""

from collections.abc import Sequence

from extremal.app.request import CONTRAST, SETS, SEVERAL_REGIONS
from extremal.explanations.effort import NORMAL
from extremal.explanations.settings import Settings
from extremal.report.text import area_percent

QUESTION_WORDS = {
    "preserve": "What is enough",
    "delete": "What the answer depends on",
    "dual": "Both at once",
    SETS: "Sufficient, necessary, complete",
    CONTRAST: "Rather than another class",
}


def ask_for_file(kind: str | None) -> str:
    """Ask for an image, or for a file of another kind.

    >>> ask_for_file(None), ask_for_file("clip")
    ('Drop an image, or choose an example.', 'Drop a clip.')
    """
    return f"Drop a {kind}." if kind else "Drop an image, or choose an example."


def describe_missing_choice(kind: str | None) -> str:
    """Return the message about a request without a file or a class.

    >>> describe_missing_choice("clip")
    'a clip and a class must be chosen first; drop one'
    """
    noun, remedy = (f"a {kind}", "") if kind else ("an image", ", or choose an example")
    return f"{noun} and a class must be chosen first; drop one{remedy}"


def describe_heading(label: str, question: str, network: str, layer: str = "") -> str:
    """Describe an answer in full.

    >>> describe_heading("cat", "delete", "embedded", "blocks.5"), describe_heading("cat", "contrast", "embedded")
    ('cat – channels of blocks.5, delete game, embedded', 'cat – rather than another class, embedded')
    """
    part = f"channels of {layer}, " if layer else ""
    return f"{label} – {part}{SEVERAL_REGIONS.get(question, f'{question} game')}, {network}"


def describe_tab(question: str, layer: str = "", details: Sequence[str] = ()) -> str:
    """Describe an answer by its question, and by what is not as usual.

    >>> describe_tab("delete"), describe_tab("preserve", "blocks.5", ["at 10 %"])
    ('What the answer depends on', 'Channels of blocks.5: what is enough, at 10 %')
    """
    words = QUESTION_WORDS.get(question, question)
    return ", ".join([f"Channels of {layer}: {words.lower()}" if layer else words, *details])


def describe_details(settings: Settings, refine: bool, stability: bool) -> list[str]:
    r"""Describe the options of an answer that are not the default ones.

    >>> describe_details(Settings(areas=[0.1], alternatives=2, effort="fast"), True, False)
    ['fast', 'at 10\xa0%', '2 alternatives', 'smallest area']
    """
    usual, own = Settings().as_dict(), settings.as_dict()
    details = [] if settings.effort == NORMAL else [settings.effort]
    if own["areas"] != usual["areas"]:
        details.append(f"at {', '.join(map(area_percent, settings.areas))}")
    if own["perturbation"] != usual["perturbation"]:
        details.append(f"replaced by {type(settings.perturbation).__name__.lower()}")
    if settings.alternatives != 1:
        details.append(f"{settings.alternatives} alternatives")
    return [*details, *(["smallest area"] if refine else []), *(["copies with noise"] if stability else [])]
