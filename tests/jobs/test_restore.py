"""Explanations restored from rows, field by field, and rows that are refused."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from extremal import Explanation, Network, explain, judge, stability
from extremal.files import content_hash
from extremal.jobs.restore import cut_masks, rebuild
from extremal.jobs.rows import SCHEMA, build_failed_row, build_row
from extremal.jobs.store import open_store, read_manifest
from extremal.masking.solvers import Consensus, Penalty, Search, Solver
from extremal.masking.solvers import Path as PathSolver
from extremal.scores import Similarity
from support.errors import message_of
from support.restored import assert_exact, assert_same, make_network, to_tensor, write_and_read, write_images
from support.runs import run_settings
from support.toys import BRITTLE_INPUTS, Brittle, dim, texture

COUNTS = {"gradients": 7, "forwards": 8, "evidence_gradients": 0, "evidence_forwards": 5}

TINY = PathSolver(steps=4, polish=3, rounds=2, draws=1, search=2)
AREAS = (0.1, 0.3)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return write_images(tmp_path)


CASES: list[tuple[str, str, Solver]] = [
    ("preserve", "blur", TINY),
    ("delete", "fade", TINY),
    ("dual", "constant", TINY),
    ("preserve", "noise", TINY),
    ("delete", "blur", Penalty(steps=3)),
    ("dual", "noise", Penalty(steps=3, padded=True)),
]


@pytest.mark.parametrize(("game", "perturbation", "solver"), CASES)
def test_an_explanation_is_restored_exactly(game, perturbation, solver, paths, tmp_path) -> None:
    net = make_network()
    explanation = explain(net, paths[0], areas=AREAS, game=game, perturbation=perturbation, solver=solver)
    (row,) = write_and_read(explanation, paths[:1], tmp_path)
    assert_exact(rebuild(row, net, settings=read_manifest(tmp_path / "run")), explanation)


@pytest.mark.parametrize("memory", [None, 1e-6], ids=["one batch", "batches of one"])
@pytest.mark.parametrize(
    "solver",
    [Consensus(steps=1, draws=1, least=1), TINY, Penalty(steps=3), Search(evaluations=50)],
    ids=["consensus", "path", "penalty", "search"],
)
def test_each_input_of_a_batch_is_restored(solver, memory, paths, tmp_path) -> None:
    net = make_network(memory=memory)
    explanation = explain(net, paths, (0, 1, 2), areas=AREAS, solver=solver)
    assert explanation.fields is not None
    rows = write_and_read(explanation, paths, tmp_path)
    for image, row in enumerate(rows):
        assert_same(rebuild(row, net, settings=run_settings(explanation)), explanation, image)
    evaluations = explanation.settings["evaluations"]
    assert {name: sum(row["counts"][name] for row in rows) for name in evaluations} == evaluations
    assert sum(row["evaluations"] for row in rows) == sum(evaluations.values())


def test_several_targets_of_one_image(paths, tmp_path) -> None:
    net = make_network()
    explanation = explain(net, paths[0], ["d", "b"], areas=AREAS, solver=TINY)
    rows = write_and_read(explanation, paths[:1] * 2, tmp_path)
    assert [(row["target"], row["target_name"]) for row in rows] == [(3, "d"), (1, "b")]
    for image, row in enumerate(rows):
        assert_same(rebuild(row, net, settings=run_settings(explanation)), explanation, image)


@pytest.mark.parametrize(
    "solver",
    [Consensus(steps=1, draws=1, least=1), TINY, Penalty(steps=3), Search(evaluations=50)],
    ids=["consensus", "path", "penalty", "search"],
)
@pytest.mark.parametrize("kind", ["within", "units"])
def test_regions_and_units_are_restored(kind, solver, paths, tmp_path) -> None:
    net, region = make_network(), torch.zeros(24, 32, dtype=torch.bool)
    region[2:20, 3:30] = True
    labels = torch.arange(24 * 32).view(24, 32) // 32 // 2 - 1  # bars, the first of them nobody's
    within, units = (region, None) if kind == "within" else (None, labels)
    explanation = explain(net, paths[0], areas=AREAS, solver=solver, within=within, units=units)
    (row,) = write_and_read(explanation, paths[:1], tmp_path)
    assert_exact(rebuild(row, net, settings=run_settings(explanation)), explanation)


def test_verdicts_are_those_of_the_row_where_stability_was_measured(paths, tmp_path) -> None:
    net = make_network()
    explanation = explain(net, paths[0], areas=AREAS, solver=TINY)
    moving = stability(net, paths[0], explanation, copies=1)
    moving = replace(moving, ious=torch.zeros_like(moving.ious), core_shares=torch.zeros_like(moving.core_shares))
    explanation = replace(explanation, stability=moving)
    (row,) = write_and_read(explanation, paths[:1], tmp_path)
    restored = rebuild(row, net, settings=run_settings(explanation))
    assert [verdict.label for verdict in restored.verdict[0]] == row["verdicts"]
    assert restored.verdict == explanation.verdict


@pytest.mark.parametrize("solver", [Consensus(steps=1, draws=1, least=1), TINY, Search(evaluations=50)])
def test_alternatives_are_restored(solver, paths, tmp_path) -> None:
    net = make_network()
    explanation = explain(net, paths[0], areas=AREAS, solver=solver, alternatives=2)
    for number, answer in enumerate((replace(explanation, alternatives=()), *explanation.alternatives)):
        (row,) = write_and_read(answer, paths[:1], tmp_path / str(number))
        restored = rebuild({**row, "alternative": number}, net, settings=run_settings(answer))
        assert_same(restored, answer)


@pytest.mark.parametrize("shape", [(40,), (6, 8, 10)], ids=["signal", "volume"])
def test_a_tensor_in_float64_is_restored_with_its_input(shape) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * math.prod(shape), 6), nn.Tanh(), nn.Linear(6, 3)).double()
    net, x = Network(model, spacing=[2.0] + [1.0] * (len(shape) - 1)), texture(1, 2, *shape)
    explanation = explain(net, x, areas=AREAS, solver=TINY)
    row = build_row(explanation, 0, key="x", path=None, digest=None, seconds=0.0)
    assert explanation.masks.dtype == torch.float64
    assert_exact(rebuild(row, net, x, settings=run_settings(explanation)), explanation)


def test_masks_that_are_not_finite_are_restored_as_zeros() -> None:
    net, longer = Network(Brittle(), memory=1e-9), PathSolver(steps=8, polish=4, draws=2)
    with pytest.warns(RuntimeWarning, match="input 1"):
        explanation = explain(net, BRITTLE_INPUTS, 0, areas=AREAS, game="delete", perturbation=dim, solver=longer)
    assert explanation.fields is not None
    assert not explanation.fields[1].any()
    assert explanation.trace_area[1].isnan().any()  # its run ended before that of the other input
    for n in (0, 1):
        row = build_row(explanation, n, key="x", path=None, digest=None, seconds=0.0)
        x = BRITTLE_INPUTS[n : n + 1]
        again = rebuild(row, net, x, settings=run_settings(explanation), perturbation=dim)
        assert bool(again.masks.any()) is (n == 0)
        torch.testing.assert_close(again.masks, explanation.masks[n : n + 1], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            again.trace_area, explanation.trace_area[n : n + 1], atol=1e-6, rtol=0, equal_nan=True
        )
        assert again.status == explanation.status[n : n + 1]


def test_a_query_must_be_passed_again(paths, tmp_path) -> None:
    net, query = make_network(), Similarity(torch.arange(6.0), layer="norm")
    explanation = explain(net, paths[0], query, areas=AREAS, solver=TINY)
    (row,) = write_and_read(explanation, paths[:1], tmp_path)
    assert_exact(rebuild(row, net, target=query, settings=run_settings(explanation)), explanation)
    assert refusal(row, net, explanation) == (
        f"the target of row {paths[0]!r} was not a class but {query.name!r}; pass this query as target"
    )


def refusal(row: dict[str, Any], net: Network, explanation: Explanation, image: Any = None, **options: Any) -> str:
    """Return why a row cannot be restored."""
    return message_of(rebuild, row, net, image, settings={**run_settings(explanation), **options})


class TestRefusals:
    @pytest.fixture
    def net(self) -> Network:
        return make_network()

    @pytest.fixture
    def explanation(self, net, paths) -> Explanation:
        return explain(net, paths[0], areas=AREAS, solver=PathSolver(steps=1, polish=0, draws=1, search=0))

    @pytest.fixture
    def row(self, explanation, paths) -> dict[str, Any]:
        return build_row(explanation, 0, key="cat", path=paths[0], digest=content_hash(paths[0]), seconds=0.0)

    def test_a_row_from_pandas_is_restored(self, net, explanation, row, tmp_path) -> None:
        with open_store(tmp_path / "run", {}, SCHEMA) as store:
            store.write("a", [row, build_failed_row("dog", None, None, "broken", 0.0)])
        table = pd.read_parquet(tmp_path / "run" / "parts")
        assert_exact(rebuild(table.iloc[0].to_dict(), net, settings=run_settings(explanation)), explanation)

    def test_the_image_may_be_passed(self, net, explanation, row, paths) -> None:
        for image in (Path(paths[0]), Image.open(paths[0]), net.prepare(Image.open(paths[0]))):
            assert_exact(rebuild(row | {"path": None}, net, image, settings=run_settings(explanation)), explanation)

    def test_a_failed_row(self, net, explanation) -> None:
        row = build_failed_row("dog", "dog.png", None, "it is a folder", 0.0)
        assert refusal(row, net, explanation) == (
            "a row must hold an explanation to be restored, row 'dog' failed: it is a folder; explain its image again"
        )

    def test_masks_of_another_method(self, net, explanation, paths) -> None:
        judged = judge(net, paths[0], explanation.masks, areas=AREAS)
        row = build_row(judged, 0, key="cat", path=paths[0], digest=None, seconds=0.0)
        assert refusal(row, net, judged) == (
            "a row must hold the parameters of its masks to be restored, row 'cat' has none: its masks were not found "
            "by a solver that keeps them; write such explanations with save"
        )

    def test_other_bytes(self, net, explanation, row, paths) -> None:
        Image.open(paths[1]).save(paths[0])
        assert refusal(row, net, explanation) == (
            f"an image must be the one that was explained, the bytes of {paths[0]!r} are not those of row 'cat'; "
            "restore the file, or explain again"
        )

    def test_no_image(self, net, explanation, row, paths) -> None:
        assert refusal(row | {"path": None}, net, explanation) == (
            "a row without a path needs its image, row 'cat' has none; pass it as image"
        )
        Path(paths[0]).unlink()
        assert refusal(row, net, explanation) == f"an image must be an existing file, got {paths[0]!r}; check the path"

    def test_several_inputs(self, net, explanation, row) -> None:
        assert refusal(row, net, explanation, texture(2, 3, 24, 32)) == (
            "a row belongs to one input, got 2; pass the one of row 'cat'"
        )

    def test_other_weights(self, net, explanation, row) -> None:
        net.model.last.bias.data += 1
        assert refusal(row, net, explanation) == (
            "a network must be the one that was explained, Switchable's weights are not those of the explanation; "
            "load the same weights, or explain again"
        )

    def test_a_network_with_other_settings(self, net, explanation, row) -> None:
        net.accelerate = "off"
        assert refusal(row, net, explanation) == (
            "a network must have the settings that it was explained with, Switchable has not: accelerate: "
            '"portable" there, "off" now; load it with the same settings'
        )

    def test_another_input_or_preprocessing(self, net, explanation, row) -> None:
        other = make_network(lambda image: to_tensor(image) * 0.5)
        score = explanation.score_full.item()
        assert re.fullmatch(
            rf"an input must have the score of its row, 'cat' had {re.escape(f'{score:.6g}')} and now has [-.\d]+; "
            r"check the image, and the preprocessing of Switchable",
            refusal(row, other, explanation),
        )

    def test_settings_without_a_short_name(self, net, explanation, row) -> None:
        error = refusal(row, net, explanation, perturbation="Blur(levels=3, sigma=9, spacing=())")
        assert error == (
            "the perturbation of the explanation was 'Blur(levels=3, sigma=9, spacing=())', which has no short name: "
            "pass it as perturbation"
        )

    def test_settings_of_no_run(self, net, row) -> None:
        for settings in (None, {}, {"explain": 3}):
            rule = f"settings must be those of a run, got {settings!r}; pass what jobs.settings(folder) returns"
            assert message_of(rebuild, row, net, settings=settings) == rule
            assert message_of(cut_masks, row, settings) == rule

    def test_incomplete_columns(self, net, explanation, row) -> None:
        assert refusal(row | {"parameters": row["parameters"][:-9]}, net, explanation) == (
            "a row must be complete, parameters of row 'cat' is missing or not of shape (1, 2, 1, 24, 32); explain its "
            "image again"
        )
        assert refusal(row | {"trace_step": None}, net, explanation) == (
            "a row must be complete, trace_step of row 'cat' is missing or not of shape (-1,); explain its image again"
        )
