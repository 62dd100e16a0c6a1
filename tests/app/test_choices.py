"""Classes and layers by name: an exact name first, stages without a text, and one class for each name."""

import pytest

pytest.importorskip("gradio")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from extremal.app.choices import MAX_SEARCH_TEXT, REGIONS, choose_class, choose_layer, search_choices
from extremal.app.networks import ServedNetwork
from extremal.app.search_route import add_search_route
from extremal.networks.class_names import rank_names
from extremal.networks.layers import Layer
from support.app_toys import colour_network
from support.errors import message_of

LAYERS = ("stem", "blocks.5.0.conv_pw", "blocks.5.0", "blocks.5", "blocks.50", "head")


@pytest.fixture(scope="module")
def served() -> ServedNetwork:
    network = ServedNetwork("toy", colour_network(("crane", "crane", "tiger cat, big cat", "bobcat")))
    network.layers = {name: Layer(name, "Conv2d", (8, 7, 7)) for name in LAYERS}
    return network


def names(served: ServedNetwork, kind: str, text: str) -> list[str]:
    return [choice.name for choice in search_choices(kind, served, text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blocks.5", ["blocks.5", "blocks.5.0.conv_pw", "blocks.5.0", "blocks.50"]),
        (" Blocks.50 ", ["blocks.50"]),
        ("conv", ["blocks.5.0.conv_pw"]),
        ("haed", ["head"]),
        ("zzz", []),
        ("", [REGIONS, "stem", "blocks.5", "blocks.50", "head"]),
    ],
)
def test_layers_are_ranked_with_the_exact_name_first(served: ServedNetwork, text: str, expected: list[str]) -> None:
    assert names(served, "layers", text) == expected


def test_stages_are_told_with_their_shape(served: ServedNetwork) -> None:
    notes = {choice.name: choice.note for choice in search_choices("layers", served, "")}
    assert (notes[REGIONS], notes["head"]) == ("", "stage, Conv2d, 8×7×7")
    assert search_choices("layers", served, "head")[0].note == "Conv2d, 8×7×7"


def test_classes_are_found_by_each_of_their_names(served: ServedNetwork) -> None:
    assert names(served, "classes", "cat") == ["tiger cat, big cat", "bobcat"]
    assert names(served, "classes", "big cat") == ["tiger cat, big cat"]
    assert names(served, "classes", "") == ["crane (0)", "crane (1)", "tiger cat, big cat", "bobcat"]


def test_every_name_that_is_offered_chooses_its_class(served: ServedNetwork) -> None:
    for index in range(4):
        assert choose_class(served, served.network.distinct_label(index)) == index


@pytest.mark.parametrize("text", ["", "  ", None, 3, "crane (2)", "lion"])
def test_other_texts_choose_no_class(served: ServedNetwork, text: object) -> None:
    assert message_of(choose_class, served, text)


def test_a_repeated_name_needs_its_number(served: ServedNetwork) -> None:
    assert "which is 0 (crane), 1 (crane)" in message_of(choose_class, served, "crane")


def test_layers_by_name(served: ServedNetwork) -> None:
    assert [choose_layer(served, text) for text in (REGIONS, "", None, " blocks.5 ")] == ["", "", "", "blocks.5"]
    assert message_of(choose_layer, served, 5) == (
        "the layer must be one of those offered, got '5'; choose one of the list"
    )


def test_the_ranking_is_that_of_the_command_line(served: ServedNetwork) -> None:
    assert names(served, "layers", "blocks") == rank_names("blocks", (REGIONS, *LAYERS))


@pytest.mark.parametrize(
    ("query", "status", "expected"),
    [
        ({"kind": "layers", "text": "head"}, 200, [{"name": "head", "note": "Conv2d, 8×7×7"}]),
        (
            {"kind": "layers", "network": "other", "text": ""},
            400,
            {"error": "this network is not offered; reload the page"},
        ),
        (
            {"kind": "files", "text": "a"},
            400,
            {"error": "a search must be for classes or layers, got 'files'; reload the page"},
        ),
        (
            {"kind": "classes", "text": "a" * (MAX_SEARCH_TEXT + 1)},
            400,
            {"error": "a search must have at most 100 characters, got 101; type a part of the name"},
        ),
    ],
)
def test_the_route(served: ServedNetwork, query: dict[str, str], status: int, expected: object) -> None:
    app = FastAPI()
    add_search_route(app, {"toy": served})
    response = TestClient(app).get("/search", params=query)
    assert (response.status_code, response.json()) == (status, expected)
