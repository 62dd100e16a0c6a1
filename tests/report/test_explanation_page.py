"""The report of an explanation: self-contained, safe against any label, exact in all numbers and places."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extremal import ExtremalValueError, report
from extremal.explanations import overlay
from extremal.explanations.certificate import Certificate
from extremal.explanations.explanation import Explanation
from extremal.explanations.verdict import Status
from extremal.report import reveal
from extremal.report.html import json_for_script
from extremal.report.sentences import stability_sentence
from extremal.report.text import summarise
from support import made_explanations, synthetic
from support.pages import NASTY, Page, check_nothing_from_elsewhere


def render_page(result: Explanation, **options: Any) -> Page:
    return Page(report.render(result, **options))


def test_nothing_is_loaded_from_elsewhere() -> None:
    source = report.render(synthetic.explanation())
    check_nothing_from_elsewhere(source, Page(source), own="url(#plot-area)")


def test_policy_allows_exactly_the_script_and_the_style_of_the_page() -> None:
    result = render_page(synthetic.explanation())
    (policy,) = [a["content"] for _, a in result.elements if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, attributes, text in result.raw:
        if attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert len(result.raw) == 3


def test_labels_may_contain_anything() -> None:
    clean = render_page(synthetic.explanation())
    settings = {**synthetic.explanation().settings, "network": NASTY}
    dirty = render_page(synthetic.explanation(target_names=(NASTY,), unseen_names=(NASTY,) * 3, settings=settings))
    titled = render_page(synthetic.explanation(), title=NASTY)
    for result in (dirty, titled):
        assert [tag for tag, _ in result.elements] == [tag for tag, _ in clean.elements]
        assert NASTY in result.words
    assert json_for_script({"name": NASTY}).isascii()
    assert not set("<>&") & set(json_for_script({"name": NASTY}))
    assert json.loads(json_for_script({"name": NASTY})) == {"name": NASTY}


@pytest.mark.parametrize("keeps", [True, False])
def test_numbers_are_those_of_the_explanation(keeps: bool) -> None:
    result = synthetic.explanation(keeps=keeps)
    data, curve = render_page(result).data, result.curve()
    rows = data["areas"]
    assert tuple(row["area"] for row in rows) == result.areas
    assert [row["places"] for row in rows] == [result.places(area) for area in result.areas]
    assert [row["score"] for row in rows] == result.binary_scores[0].tolist()
    for name in ("soft", "binary", "unseen", "control", "control_best"):
        assert tuple(row[name] for row in rows) == getattr(curve, name)
    assert [row["verdict"] for row in rows] == [verdict.label for verdict in result.verdict[0]]
    assert data["keeps"] is keeps
    enough = result.smallest()
    assert enough is not None
    assert result.areas[data["smallest"]] == enough.area


def test_table_has_every_number() -> None:
    result = synthetic.explanation()
    words = render_page(result).words
    for row in summarise(result).rows:
        for text in (
            row.label,
            *(f"{100 * effect:.0f}\xa0%" for effect in row.effects),
            f"{row.score:.3f}",
            row.reason,
        ):
            assert text in words


@pytest.mark.parametrize("areas", [synthetic.AREAS, (0.3,), (0.1, 0.1004), (0.001, 0.5, 0.999)])
@pytest.mark.parametrize("shape", [(48, 64), (7, 5)])
def test_revealed_places_are_the_scored_mask_at_each_computed_area(
    areas: tuple[float, ...], shape: tuple[int, int]
) -> None:
    result = synthetic.explanation(areas, shape, count=2)
    data = render_page(result, image=1).data
    for area, text in zip(areas, data["maps"], strict=True):
        level = np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)
        assert ((level <= data["steps"]) == (result.binary(area)[1, 0].numpy() > 0)).all()


def test_places_of_complete_units_are_counted() -> None:
    units = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1]])  # half of the places hold the first unit, a quarter holds none
    assert [row.places for row in summarise(made_explanations.explanation(units=units)).rows] == [0, 3]


def test_between_computed_areas_places_come_in_order_of_rank() -> None:
    result = synthetic.explanation()
    order = result.order()
    for ranks, level, start in zip(order, reveal.reveal_levels(result), (0.0125, *result.areas[:-1]), strict=True):
        by_rank = level.flatten()[torch.argsort(ranks.flatten())]
        assert (by_rank.long().diff() >= 0).all()
        assert int((level == 0).sum()) == result.places(start)


def test_scores_that_are_not_finite_are_reported() -> None:
    result = synthetic.explanation()
    scores = result.binary_scores.clone()
    scores[0, 1], scores[0, 2] = torch.nan, torch.inf
    status = ((Status.NOT_FINITE,) * 5,)
    result = render_page(replace(result, binary_scores=scores, scores=result.scores * torch.nan, status=status))
    assert [row["score"] for row in result.data["areas"]][1:3] == [None, None]
    assert all(row["soft"] is None for row in result.data["areas"])
    assert "not finite" in result.words
    for tag, attributes in result.elements:
        if tag in ("polyline", "polygon", "circle", "rect", "line", "text"):
            assert not re.search("nan|inf", " ".join(map(str, attributes.values())))


def test_headline_and_caution() -> None:
    result = synthetic.explanation()
    assert (
        "40\xa0% of the image keeps 105\xa0% of the score (the network is surer than with the whole image); random "
        "regions of that size keep" in render_page(result).words
    )
    weak = render_page(replace(result, binary_scores=result.binary_scores * 0.5))
    assert "None of the computed areas is enough" in weak.words
    assert weak.data["smallest"] is None
    assert "Smallest sufficient area" not in weak.words
    span = result.score_full - result.score_blank
    close = render_page(
        replace(result, binary_scores=(result.score_blank + 0.8961 * span).expand(1, len(result.areas)))
    )
    assert "The best of them: " in close.words
    assert "of the image keeps 89.6\xa0% of the score" in close.words
    lucky = render_page(replace(result, control_scores=result.control_scores + 1))
    assert "Chance is enough: a random region of this size reaches" in lucky.words
    assert "Smallest sufficient area" not in lucky.words
    assert "Removing 40\xa0% of the image takes away" in render_page(synthetic.explanation(keeps=False)).words


@pytest.mark.parametrize("shape", [(20, 30)])
def test_without_pictures_there_is_no_reveal(shape: tuple[int, ...]) -> None:
    result = render_page(synthetic.explanation((0.1, 0.3), shape, pictures=False))
    assert result.data["maps"] == []
    assert not {"canvas", "img", "input"} & {tag for tag, _ in result.elements}
    assert "not an image" in result.words
    assert "of the input keeps" in result.words


def test_accessible_names() -> None:
    result = render_page(synthetic.explanation())
    ids = [attributes["id"] for _, attributes in result.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert ("label", {"for": "area"}) in result.elements
    assert any(attributes.get("aria-live") == "polite" for _, attributes in result.elements)
    for tag, attributes in result.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids


def test_pictures_are_embedded_without_loss() -> None:
    import io

    from PIL import Image

    result = synthetic.explanation()
    (uri,) = [a["src"] for tag, a in render_page(result).elements if tag == "img" and a.get("id") == "photograph"]
    picture = Image.open(io.BytesIO(base64.b64decode(str(uri).partition(",")[2])))
    assert (np.asarray(picture) == result.pictures[0].numpy()).all()


def test_size_at_the_usual_side() -> None:
    assert len(report.render(synthetic.explanation(shape=(224, 224)))) < 1_500_000


def test_same_explanation_same_page() -> None:
    assert report.render(synthetic.explanation()) == report.render(synthetic.explanation())


def test_image_must_exist() -> None:
    with pytest.raises(ExtremalValueError, match=r"^image must lie in 0\.\.0 for 1 inputs, got -1$"):
        report.render(synthetic.explanation(), image=-1)


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    report.write(synthetic.explanation(), path, title="A cat")
    first = path.read_text(encoding="utf-8")
    assert first == report.render(synthetic.explanation(), title="A cat")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write(synthetic.explanation(), path)
    assert path.read_text(encoding="utf-8") == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def with_alternatives(keeps: bool = True) -> Explanation:
    """Three alternatives: the second is another region, the third repeats the first."""
    first, second = synthetic.explanation(keeps=keeps), synthetic.explanation(keeps=keeps, seed=1)
    return replace(first, alternatives=(second, first))


@pytest.mark.parametrize("keeps", [True, False])
def test_alternatives_are_shown_with_exactly_their_places(keeps: bool) -> None:
    result = with_alternatives(keeps)
    regions = result.regions(overlap=0.9)
    assert len(result.regions()) == 1  # at 40 % any two overlap by more than a fifth
    words = render_page(result).words
    assert "Only one sufficient region was found; 3 were requested." in words
    assert render_page(synthetic.explanation()).words.count("Alternative regions") == 0
    visible = regions[0].mask[0].bool() if keeps else ~regions[0].mask[0].bool()
    shown = overlay.apply_mask(result, regions[0].mask)
    assert torch.equal(shown[visible], result.pictures[0][visible])
    assert not torch.equal(shown[~visible], result.pictures[0][~visible])
    assert torch.equal(shown[~visible][:, 0], shown[~visible][:, 2])  # without colour


def test_missing_alternatives_are_reported() -> None:
    result = with_alternatives()
    weak = [replace(part, binary_scores=part.binary_scores * 0.1) for part in (result, *result.alternatives)]
    words = render_page(replace(weak[0], alternatives=tuple(weak[1:]))).words
    assert "No sufficient region was found; 3 were requested." in words


def test_alternatives_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    result = with_alternatives()
    apart = replace(result.regions()[0], area=0.2, mask=result.binary(0.2)[0], source=1)
    monkeypatch.setattr(Explanation, "regions", lambda self, image=0: (self.smallest(), apart))
    rendered = render_page(result)
    words = rendered.words.replace("\xa0", " ")
    assert "2 sufficient regions with little overlap were found (40 %, 20 %); 3 were requested." in words
    assert sum("region" in str(attributes.get("alt")) for tag, attributes in rendered.elements if tag == "img") == 2


def test_the_certificate_is_described() -> None:
    certificate = Certificate(0.345, torch.ones(1, 48, 64), 0.912, 0.338, 0.88, 0.9)
    words = render_page(synthetic.explanation(), certificate=certificate).words.replace("\xa0", " ")
    assert "Smallest area found: 34.5 % has 91 % of the effect; the best mask found at 33.8 % has 88 %." in words
    close = render_page(synthetic.explanation(), certificate=replace(certificate, below_effect=0.8961)).words
    assert "the best mask found at 33.8\xa0% has 89.6\xa0%." in close
    open_end = replace(certificate, below_area=0.0, below_effect=float("nan"))
    words = render_page(synthetic.explanation(), certificate=open_end).words.replace("\xa0", " ")
    assert "34.5 % has 91 % of the effect; every smaller area that was tried is also enough." in words
    assert "Smallest area found" not in render_page(synthetic.explanation()).words


def test_the_certificate_tells_what_unseen_perturbations_and_chance_leave() -> None:
    certificate = Certificate(0.345, torch.ones(1, 48, 64), 0.912, 0.338, 0.94, 0.9, 0.6, 0.4496, 0.95)
    words = render_page(synthetic.explanation(), certificate=certificate).words.replace("\xa0", " ")
    assert (
        "the best mask found at 33.8 % has 94 %, but only 44.96 % under perturbations it was not made for. "
        "Chance is enough: a random region of this size has 95 %."
    ) in words
    words = render_page(synthetic.explanation(), certificate=replace(certificate, control_effect=0.3)).words
    assert "Chance is enough" not in words


def test_stability_is_a_part_of_the_table() -> None:
    plain = synthetic.explanation()
    assert "Stable IoU" not in report.render(plain)
    page = report.render(replace(plain, stability=synthetic.stability(iou=0.4)))
    assert page.count('data-label="Stable IoU">0.40<') == len(plain.areas)
    assert page.count('data-label="Core">72\xa0%<') == len(plain.areas)
    assert "Over 3 copies with one grey level of noise, the smallest sufficient area lies between" in page
    assert "This mask is unstable: copies with one grey level of noise share only 40\xa0% of their places." in page


@pytest.mark.parametrize(
    ("areas", "sentence"),
    [
        ([0.1, 0.1], "Over 2 copies with one grey level of noise, the smallest sufficient area is 10\xa0% each time."),
        ([math.nan, math.nan], "Over 2 copies with one grey level of noise, none of the computed areas is sufficient."),
        ([0.1, math.nan], "Over 2 copies with one grey level of noise, a computed area is sufficient for only 1."),
        ([0.1], "Over one copy with one grey level of noise, the smallest sufficient area is 10\xa0% each time."),
    ],
)
def test_areas_of_copies_in_words(areas: list[float], sentence: str) -> None:
    ious = torch.zeros(1, 5, len(areas))
    measured = replace(synthetic.stability(), ious=ious, smallest_areas=torch.tensor([areas], dtype=torch.float64))
    assert stability_sentence(measured) == sentence
