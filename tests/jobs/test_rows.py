"""Rows of data-set runs: read by hand, and an explanation rebuilt from each, field by field."""

import dataclasses
import hashlib
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

import extremal
from extremal import Explanation, Network, explain, judge
from extremal.errors import ExtremalValueError
from extremal.files import content_hash
from extremal.jobs.packing import packed, packed_shares, unpacked, unpacked_shares
from extremal.jobs.restore import rebuild
from extremal.jobs.rows import SCHEMA, build_failed_row, build_row, run_settings
from extremal.jobs.store import read_manifest, open_store
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Penalty, Solver
from extremal.scores import Similarity
from support.made_explanations import explanation
from support.toys import BRITTLE_INPUTS, Brittle, Switchable, dim, texture

TINY = PathSolver(steps=4, polish=3, rounds=2, draws=1, search=2)
AREAS = (0.1, 0.3)
COUNTS = {"gradients": 7, "forwards": 8, "evidence_gradients": 0, "evidence_forwards": 5}


def seen(picture: Image.Image) -> Tensor:
    """A picture as the network takes it: (3, H, W) around zero."""
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 127.5 - 1


def network(preprocess: Any = seen, **options: Any) -> Network:
    return Network(Switchable(), preprocess, ("a", "b", "c", "d"), mirror=True, **options)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Three files of noise, 32 × 24 px."""
    draw, paths = np.random.default_rng(0), [str(tmp_path / f"{name}.png") for name in ("one", "two", "three")]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (24, 32, 3)).astype(np.uint8)).save(path)
    return paths


def rows_of(found: Explanation, paths: list[str], folder: Path) -> list[dict[str, Any]]:
    """The rows of an explanation, through the file of a store."""
    made = [build_row(found, n, key=path, path=path, digest=content_hash(path), seconds=0.5) for n, path in enumerate(paths)]
    with open_store(folder / "run", run_settings(found), SCHEMA) as store:
        store.write("a", made)
        read: list[dict[str, Any]] = store.read_all().to_pylist()
    return read


def assert_same(after: Explanation, before: Explanation, image: int = 0) -> None:
    """Every field is that of one input of the explanation, numbers to 1e-6."""
    for field in dataclasses.fields(Explanation):
        mine, other = getattr(after, field.name), getattr(before, field.name)
        if field.name == "settings":
            mine, other = ({**settings, "evaluations": {}} for settings in (mine, other))
        if field.name in ("target", "target_names", "status"):
            other = other[image : image + 1]
        if not isinstance(other, Tensor):
            assert mine == other, field.name
            continue
        if field.name not in ("trace_step", "within", "units"):
            other = other[image : image + 1]
        torch.testing.assert_close(
            mine, other, atol=1e-6, rtol=0, equal_nan=True, msg=lambda told, name=field.name: f"{name}: {told}"
        )


def assert_exact(after: Explanation, before: Explanation) -> None:
    """Everything of the one input is as it was to the bit, but for what of the trace is kept to 5e-7."""
    assert_same(after, before)
    assert dataclasses.replace(after, trace_area=before.trace_area, trace_grey=before.trace_grey) == before


CASES: list[tuple[str, str, Solver]] = [
    ("preserve", "blur", TINY),
    ("delete", "fade", TINY),
    ("dual", "constant", TINY),
    ("preserve", "noise", TINY),
    ("delete", "blur", Penalty(steps=3)),
    ("dual", "noise", Penalty(steps=3, padded=True)),
]


@pytest.mark.parametrize(("game", "perturbation", "solver"), CASES)
def test_an_explanation_comes_back_from_its_row(game, perturbation, solver, pictures, tmp_path) -> None:
    net = network()
    found = explain(net, pictures[0], areas=AREAS, game=game, perturbation=perturbation, solver=solver)
    (read,) = rows_of(found, pictures[:1], tmp_path)
    assert_exact(rebuild(read, net, settings=read_manifest(tmp_path / "run")), found)


@pytest.mark.parametrize("memory", [None, 1e-6], ids=["one block", "blocks of one"])
@pytest.mark.parametrize("solver", [TINY, Penalty(steps=3)], ids=["path", "penalty"])
def test_each_of_a_batch_comes_back(solver, memory, pictures, tmp_path) -> None:
    net = network(memory=memory)
    found = explain(net, pictures, (0, 1, 2), areas=AREAS, solver=solver)
    assert found.fields is not None
    read = rows_of(found, pictures, tmp_path)
    for n, one in enumerate(read):
        assert_same(rebuild(one, net, settings=run_settings(found)), found, n)
    spent = found.settings["evaluations"]
    assert {name: sum(one["counts"][name] for one in read) for name in spent} == spent
    assert sum(one["evaluations"] for one in read) == sum(spent.values())


def test_several_targets_of_one_picture(pictures, tmp_path) -> None:
    net = network()
    found = explain(net, pictures[0], ["d", "b"], areas=AREAS, solver=TINY)
    read = rows_of(found, pictures[:1] * 2, tmp_path)
    assert [(one["target"], one["target_name"]) for one in read] == [(3, "d"), (1, "b")]
    for n, one in enumerate(read):
        assert_same(rebuild(one, net, settings=run_settings(found)), found, n)


@pytest.mark.parametrize("solver", [TINY, Penalty(steps=3)], ids=["path", "penalty"])
@pytest.mark.parametrize("kind", ["within", "units"])
def test_regions_and_units_come_back(kind, solver, pictures, tmp_path) -> None:
    net, region = network(), torch.zeros(24, 32, dtype=torch.bool)
    region[2:20, 3:30] = True
    labels = torch.arange(24 * 32).view(24, 32) // 32 // 2 - 1  # bars, the first of them nobody's
    within, units = (region, None) if kind == "within" else (None, labels)
    found = explain(net, pictures[0], areas=AREAS, solver=solver, within=within, units=units)
    (read,) = rows_of(found, pictures[:1], tmp_path)
    assert_exact(rebuild(read, net, settings=run_settings(found)), found)


@pytest.mark.parametrize("shape", [(40,), (6, 8, 10)], ids=["signal", "volume"])
def test_a_tensor_in_float64_comes_back_with_its_input_given(shape) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * math.prod(shape), 6), nn.Tanh(), nn.Linear(6, 3)).double()
    net, x = Network(model, spacing=[2.0] + [1.0] * (len(shape) - 1)), texture(1, 2, *shape)
    found = explain(net, x, areas=AREAS, solver=TINY)
    made = build_row(found, 0, key="x", path=None, digest=None, seconds=0.0)
    assert found.masks.dtype == torch.float64
    assert_exact(rebuild(made, net, x, settings=run_settings(found)), found)


def test_a_run_that_was_not_finite_comes_back_as_zeros() -> None:
    net, longer = Network(Brittle(), memory=1e-9), PathSolver(steps=8, polish=4, draws=2)
    with pytest.warns(RuntimeWarning, match="input 1"):
        found = explain(net, BRITTLE_INPUTS, 0, areas=AREAS, game="delete", perturbation=dim, solver=longer)
    assert found.fields is not None
    assert not found.fields[1].any()
    assert found.trace_area[1].isnan().any()  # its run ended before the other's
    for n in (0, 1):
        made = build_row(found, n, key="x", path=None, digest=None, seconds=0.0)
        x = BRITTLE_INPUTS[n : n + 1]
        again = rebuild(made, net, x, settings=run_settings(found), perturbation=dim)
        assert bool(again.masks.any()) is (n == 0)
        torch.testing.assert_close(again.masks, found.masks[n : n + 1], atol=1e-6, rtol=0)
        torch.testing.assert_close(again.trace_area, found.trace_area[n : n + 1], atol=1e-6, rtol=0, equal_nan=True)
        assert again.status == found.status[n : n + 1]


def test_a_question_is_passed_again(pictures, tmp_path) -> None:
    net, question = network(), Similarity(torch.arange(6.0), layer="norm")
    found = explain(net, pictures[0], question, areas=AREAS, solver=TINY)
    (read,) = rows_of(found, pictures[:1], tmp_path)
    assert_exact(rebuild(read, net, target=question, settings=run_settings(found)), found)
    assert refused(read, net, found) == (
        f"the target of row {pictures[0]!r} was no class but a question, {question.name!r}: pass it as target"
    )


def test_the_embedded_network_and_the_size_of_a_row(tmp_path) -> None:
    net, path = extremal.zoo.load("embedded"), str(tmp_path / "cat.png")
    Image.fromarray(data.chelsea()).save(path)
    found = explain(net, path, solver=PathSolver(steps=2, polish=1, rounds=1, draws=1, search=0))
    (read,) = rows_of(found, [path], tmp_path)
    assert_exact(rebuild(read, net, settings=run_settings(found)), found)
    noise = torch.rand(104, generator=torch.Generator().manual_seed(0))  # as long as the default solver's trace
    traces = {
        "trace_area": packed_shares(noise, 5),
        "trace_grey": packed_shares(noise, 5),
        "trace_reward": packed(noise),
    }
    with open_store(tmp_path / "one", {}, SCHEMA) as store:
        store.write("a", [read | traces])
    assert (tmp_path / "one" / "parts" / "a.parquet").stat().st_size <= 40_000  # with the table's own head
    fields = torch.randn(1, 5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert len(read["fields"]) < len(packed(fields)) + 200 < 19_500  # fields are no worse than noise


class TestColumns:
    def made(self, **changes: object) -> dict[str, Any]:
        settings = {"seed": 3, "mirror": False, "evaluations": COUNTS}
        return build_row(explanation(settings=settings, **changes), 0, key="7/cat", path="cat.png", digest="ab", seconds=2.5)

    def test_are_read_with_pandas_alone(self, tmp_path) -> None:
        with open_store(tmp_path, {"seed": 3}, SCHEMA) as store:
            store.write("a", [self.made()])
            store.write("b", [build_failed_row("8/dog", "dog.png", "cd", "an image must be a file", 0.25)])
        table = pd.read_parquet(tmp_path / "parts")
        assert list(table.columns) == SCHEMA.names
        cat, dog = table.iloc[0], table.iloc[1]
        assert cat[["key", "path", "content_hash", "status", "seconds"]].tolist() == [
            "7/cat",
            "cat.png",
            "ab",
            "done",
            2.5,
        ]
        assert (cat.target, cat.target_name) == (3, "tabby, tabby cat")
        assert (cat.score_full, cat.score_blank) == (10.0, 2.0)
        assert cat.areas.tolist() == [0.25, 0.5]
        assert cat.binary_scores.tolist() == pytest.approx([4.0, 9.6])
        assert [line.tolist() for line in cat.unseen_scores] == [[3.0, 5.0, 4.0], [9.0, 10.0, 4.0]]
        assert cat.unseen_names.tolist() == ["fade", "constant", "noise"]
        assert [line.tolist() for line in cat.control_scores] == [
            pytest.approx([2.0, 3.2, 2.8]),
            pytest.approx([3.6, 2.0, 1.2]),
        ]
        assert cat.verdicts.tolist() == ["insufficient", "sufficient"]
        assert cat.verdict == "sufficient"
        assert cat.statuses.tolist() == ["converged", "stuck"]
        assert (cat.evaluations, cat.counts) == (20, COUNTS)
        assert dog[["key", "status", "error", "seconds"]].tolist() == [
            "8/dog",
            "failed",
            "an image must be a file",
            0.25,
        ]
        assert dog.drop(["key", "path", "content_hash", "status", "error", "seconds"]).isna().all()

    def test_the_smallest_area_that_is_enough(self) -> None:
        made = self.made()
        assert (made["verdict"], made["smallest_area"]) == ("sufficient", 0.5)
        assert made["smallest_effect"] == pytest.approx(0.95)  # (9.6 − 2) / 8
        assert made["unseen_effect"] == pytest.approx(0.875)  # the median of 7/8, 1 and 0
        assert made["reasons"][1] == "95 % of the effect, at best 20 % by chance"

    def test_a_suspect_one(self) -> None:
        made = self.made(control_scores=torch.tensor([[[2.0], [9.9]]]))
        assert (made["verdict"], made["smallest_area"]) == ("suspect", 0.5)
        assert made["reasons"][1] == "a random region of this size reaches 99 %"

    def test_none(self) -> None:
        made = self.made(binary_scores=torch.tensor([[4.0, 5.0]]))
        assert made["verdict"] == "insufficient"
        assert made["smallest_area"] is made["smallest_effect"] is made["unseen_effect"] is None

    def test_perturbations_that_tell_nothing_tell_null(self) -> None:
        assert self.made(unseen_blank=torch.full((1, 3), 10.0))["unseen_effect"] is None

    def test_what_all_rows_share(self) -> None:
        settings = {"seed": 3, "mirror": False, "evaluations": COUNTS}
        assert run_settings(explanation(settings=settings)) == {"seed": 3}

    def test_the_hash_is_of_the_bytes(self, tmp_path) -> None:
        (tmp_path / "a").write_bytes(b"picture")
        assert content_hash(tmp_path / "a") == hashlib.sha256(b"picture").hexdigest()

    def test_alternatives_make_rows_of_their_own(self) -> None:
        message = (
            "a row holds one answer, got an explanation with 1 alternatives; make a row of each: "
            "dataclasses.replace(explanation, alternatives=()) and explanation.alternatives"
        )
        with pytest.raises(ExtremalValueError, match=f"^{re.escape(message)}$"):
            self.made(alternatives=(explanation(),))


def refused(read: dict[str, Any], net: Network, found: Explanation, picture: Any = None, **options: Any) -> str:
    with pytest.raises(ExtremalValueError) as told:
        rebuild(read, net, picture, settings={**run_settings(found), **options})
    return str(told.value)


class TestRefused:
    @pytest.fixture
    def net(self) -> Network:
        return network()

    @pytest.fixture
    def found(self, net, pictures) -> Explanation:
        return explain(net, pictures[0], areas=AREAS, solver=PathSolver(steps=1, polish=0, draws=1, search=0))

    @pytest.fixture
    def made(self, found, pictures) -> dict[str, Any]:
        return build_row(found, 0, key="cat", path=pictures[0], digest=content_hash(pictures[0]), seconds=0.0)

    def test_from_pandas_it_is_taken(self, net, found, made, tmp_path) -> None:
        with open_store(tmp_path / "run", {}, SCHEMA) as store:
            store.write("a", [made, build_failed_row("dog", None, None, "broken", 0.0)])
        table = pd.read_parquet(tmp_path / "run" / "parts")
        assert_exact(rebuild(table.iloc[0].to_dict(), net, settings=run_settings(found)), found)

    def test_the_picture_may_be_given(self, net, found, made, pictures) -> None:
        for picture in (Path(pictures[0]), Image.open(pictures[0]), net.prepare(Image.open(pictures[0]))):
            assert_exact(rebuild(made | {"path": None}, net, picture, settings=run_settings(found)), found)

    def test_a_failed_row(self, net, found) -> None:
        made = build_failed_row("dog", "dog.png", None, "it is a folder", 0.0)
        assert refused(made, net, found) == (
            "a row must hold an explanation to be rebuilt, 'dog' failed: it is a folder; explain it again"
        )

    def test_masks_that_were_given(self, net, found, pictures) -> None:
        given = judge(net, pictures[0], found.masks, areas=AREAS)
        made = build_row(given, 0, key="cat", path=pictures[0], digest=None, seconds=0.0)
        assert refused(made, net, given) == (
            "a row must hold the fields of its masks to be rebuilt, 'cat' has none: its masks were given, or its "
            "solver tells none; keep such explanations with save"
        )

    def test_other_bytes(self, net, found, made, pictures) -> None:
        Image.open(pictures[1]).save(pictures[0])
        assert refused(made, net, found) == (
            f"a picture must be the one that was explained, the bytes of {pictures[0]!r} are not those of row 'cat'; "
            "put the former file there, or explain again"
        )

    def test_no_picture(self, net, found, made, pictures) -> None:
        assert refused(made | {"path": None}, net, found) == (
            "a row without a path needs its picture, 'cat' has none; pass it as picture"
        )
        Path(pictures[0]).unlink()
        assert refused(made, net, found) == f"an image must be an existing file, got {pictures[0]!r}; check the path"

    def test_several_inputs(self, net, found, made) -> None:
        assert refused(made, net, found, texture(2, 3, 24, 32)) == (
            "a row is of one input, got 2; pass the one of row 'cat'"
        )

    def test_other_weights(self, net, found, made) -> None:
        net.model.last.bias.data += 1
        assert refused(made, net, found) == (
            "a network must be the one that was explained, Switchable's weights are not those of the row; "
            "load the same weights, or explain again"
        )

    def test_a_network_set_otherwise(self, net, found, made) -> None:
        net.accelerate = "off"
        assert refused(made, net, found) == (
            'a network must be set as when it was explained, Switchable is not: accelerate: "portable" there, "off" '
            "now; "
            "load it alike"
        )

    def test_another_input_or_preprocessing(self, net, found, made) -> None:
        other = network(lambda picture: seen(picture) * 0.5)
        told = refused(made, other, found)
        whole = found.score_full.item()
        assert re.fullmatch(
            rf"an input must score as its row tells, 'cat' scored {re.escape(f'{whole:.6g}')} and scores [-.\d]+ now; "
            r"check the picture, and the preprocessing of Switchable",
            told,
        )

    def test_terms_without_a_short_name(self, net, found, made) -> None:
        told = refused(made, net, found, perturbation="Blur(levels=3, sigma=9, spacing=())")
        assert told == (
            "perturbation must be one of blur, fade, constant, noise or a callable, got "
            "'Blur(levels=3, sigma=9, spacing=())'"
        )

    def test_broken_bytes(self, net, found, made) -> None:
        assert refused(made | {"fields": made["fields"][:-9]}, net, found) == (
            "a row must be whole, fields of row 'cat' is broken or not of shape (1, 2, 1, 24, 32); explain it again"
        )
        assert refused(made | {"trace_step": packed(torch.zeros(3))}, net, found) == (
            "a row must be whole, trace_step of row 'cat' is broken or not of shape (-1,); explain it again"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 1, 4)])
def test_tensors_are_packed_without_loss(dtype, shape) -> None:
    values = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    assert torch.equal(unpacked(packed(values), dtype, shape), values)


@pytest.mark.parametrize("columns", [1, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 104])
def test_shares_are_packed_to_half_a_millionth(columns, count) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(0))
    values[:3] = torch.tensor([0.0, 1.0, torch.nan])[:count]
    again = unpacked_shares(packed_shares(values, columns), torch.float32, columns)
    torch.testing.assert_close(again, values, atol=5e-7, rtol=0, equal_nan=True)


def test_shares_of_a_slow_descent_are_few_bytes() -> None:
    lines = torch.linspace(1, 0.3, 400)[:, None] * torch.tensor([0.1, 0.4, 0.9])
    assert len(packed_shares(lines.flatten(), 3)) < len(packed(lines)) / 8


def test_the_packed_format_is_bytes_of_one_significance_together() -> None:
    data = zlib.decompress(packed(torch.tensor([1.0, -2.0])))
    assert data == np.array([1.0, -2.0], "<f4").view(np.uint8).reshape(2, 4).T.tobytes()


def test_the_part_of_a_run_opens_as_it_is(pictures, tmp_path) -> None:
    found = explain(network(), pictures[0], areas=AREAS, solver=TINY)
    rows_of(found, pictures[:1], tmp_path)
    assert pq.read_schema(tmp_path / "run" / "parts" / "a.parquet").equals(SCHEMA)
