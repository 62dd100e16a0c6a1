"""Fonts for names in any script: each text of a figure gets installed fonts that have its characters."""

import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_FOR_TEXT = re.compile(
    r"last ?resort|\bcm[a-z]+\d+$|^STIX.*Siz|Emoji|Symbol", re.IGNORECASE
)  # glyphs without meaning
STANDARD = "sans-serif"
NOTE = "No installed font has {}: install one that does, e.g. Noto Sans CJK."


def fit_fonts(drawing: "Figure") -> None:
    """Give each text of a figure fonts that have its characters.

    Characters that no installed font has are written as their code points, with a note at the foot of the figure.
    """
    from matplotlib.text import Text

    missing = list[str]()
    for text in drawing.findobj(Text):
        content: str = text.get_text()
        if content.isascii():
            continue
        families = find_families(content)
        absent = find_missing(content, families)
        if absent:
            missing += [name for name in map(_code_point, sorted(absent)) if name not in missing]
            content = _write_code_points(content, absent)
            text.set_text(content)
        if len(families) > 1:
            text.set_fontfamily(list(families))
    if missing:
        shown = ", ".join(missing[:4]) + (" and others" if len(missing) > 4 else "")
        drawing.text(0.995, 0.002, NOTE.format(shown), size=7, color="0.35", ha="right", va="bottom")


def find_families(content: str) -> tuple[str, ...]:
    """Return the standard family, and installed families that have the characters it lacks, if there are any.

    >>> find_families("café")
    ('sans-serif',)
    """
    families: tuple[str, ...] = (STANDARD,)
    absent = find_missing(content, ())
    while absent:
        found = _find_family(frozenset(absent))
        if not found:
            break
        families, absent = (*families, found), absent - _characters(found)
    return families


def find_missing(content: str, families: Iterable[str]) -> set[str]:
    """Return the characters that neither the standard family nor these families have."""
    known = set().union(_characters(STANDARD), *(_characters(family) for family in families))
    return {letter for letter in content if not letter.isspace() and letter not in known}


def show_name(name: str, index: int | None) -> str:
    """Return the name of a class, or its index if no installed font has all characters of the name.

    >>> show_name("cat", 281)
    'cat'
    """
    if index is None or not find_missing(name, find_families(name)):
        return name
    return f"class {index}"


@cache
def _characters(family: str) -> frozenset[str]:
    """Return the characters of the regular font of a family."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    path = findfont(FontProperties(family=[family]), fallback_to_default=family == STANDARD)
    return frozenset(map(chr, get_font(path).get_charmap()))


@cache
def _find_family(absent: frozenset[str]) -> str:
    """Return the installed family that has most of these characters, by name if several do; empty if none has any."""
    from matplotlib.font_manager import fontManager, get_font

    best, most = "", 0
    for font in sorted(fontManager.ttflist, key=lambda font: (font.name, font.weight != 400, font.style != "normal")):
        if NOT_FOR_TEXT.search(font.name):
            continue
        try:
            characters = get_font(font.fname).get_charmap()
            count = sum(ord(letter) in characters for letter in absent)
            if count > most and absent & _characters(font.name):
                best, most = font.name, count
        except (OSError, RuntimeError, ValueError):  # a broken font file
            continue
    return best


def _code_point(letter: str) -> str:
    return f"U+{ord(letter):04X}"


def _write_code_points(content: str, absent: set[str]) -> str:
    """Replace each run of absent characters by the code point of its first one.

    >>> _write_code_points("a 猫猫 b", {"猫"})
    'a [U+732B…] b'
    """
    runs = re.compile("[" + "".join(map(re.escape, sorted(absent))) + "]+")
    return runs.sub(lambda run: f"[{_code_point(run[0][0])}{'…' if len(run[0]) > 1 else ''}]", content)
