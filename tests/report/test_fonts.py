"""Names in any script in figures: an installed font that has the characters, else a stated fallback, never boxes."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from extremal import plots
from extremal.report import fonts
from support.made_explanations import explanation

NAME = "猫犬"
NOTE = "No installed font has U+72AC, U+732B: install one that does, e.g. Noto Sans CJK."


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget which fonts are installed, before and after a test; only those of matplotlib are."""
    own = [font for font in font_manager.fontManager.ttflist if "matplotlib" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    for function in (fonts._characters, fonts._find_family):
        function.cache_clear()
    yield
    for function in (fonts._characters, fonts._find_family):
        function.cache_clear()


def draw(figure: Figure) -> str:
    """Draw a figure with every warning an error, and return all its texts."""
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns about each character without a glyph
        figure.canvas.draw()
    return " ".join(text.get_text() for text in figure.texts)


def install_font(path: Path, letters: str) -> None:
    """Install a font that has squares for these characters."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = [".notdef", *(f"u{ord(letter):X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):X}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test CJK", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    font_manager.fontManager.addfont(path)


def test_an_installed_font_is_used(tmp_path: Path) -> None:
    install_font(tmp_path / "cjk.ttf", NAME)
    figure = plots.figure(explanation(target_names=(NAME,)))
    texts = draw(figure)
    assert NAME in texts
    assert "U+" not in texts
    (heading,) = [text for text in figure.texts if NAME in text.get_text()]
    assert heading.get_fontfamily() == ["sans-serif", "Test CJK"]


def test_without_a_font_the_index_is_shown() -> None:
    texts = draw(plots.figure(explanation(target_names=(NAME,), target=(281,))))
    assert "class 281 – " in texts
    assert NAME not in texts


def test_other_texts_show_code_points_and_say_why() -> None:
    figure = Figure()
    figure.text(0, 0, f"a {NAME} b")
    axes = figure.add_subplot()
    axes.set_title("café → ≥ 5 %")
    fonts.fit_fonts(figure)
    assert draw(figure) == f"a [U+732B…] b {NOTE}"
    assert axes.get_title() == "café → ≥ 5 %"


def test_a_part_of_the_characters(tmp_path: Path) -> None:
    install_font(tmp_path / "cjk.ttf", NAME[0])
    figure = Figure()
    figure.text(0, 0, NAME)
    fonts.fit_fonts(figure)
    assert draw(figure) == f"猫[U+72AC] {NOTE.replace(', U+732B', '')}"


@pytest.mark.parametrize("name", ["ключ", "γάτα", "chat à l'œil", "naïve – 5 €", "dollar $x$"])
def test_names_that_the_standard_font_has_are_unchanged(name: str) -> None:
    assert fonts.show_name(name, 3) == name
    assert fonts.find_families(name) == ("sans-serif",)


@pytest.mark.parametrize("name", ["고양이", "แมว", "🐈", "बिल्ली", "\U000f0000"])
def test_no_script_is_shown_as_boxes(name: str) -> None:
    figure = Figure()
    figure.text(0, 0, name)
    fonts.fit_fonts(figure)
    assert "U+" in draw(figure)
    assert fonts.show_name(name, 3) == "class 3"
