"""The four tasks on a network with known answers, and `extremal bench` and `figures` from end to end."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from extremal import zoo
from extremal.benchmark import metrics, paper_figures, paper_table
from extremal.benchmark.baselines import METHODS, ExplanationMap, Gradient
from extremal.benchmark.data import Folder, Scenes, get_data_set, has_regions
from extremal.benchmark.runner import run
from extremal.benchmark.table import build_table
from extremal.benchmark.tasks.faithfulness import Faithfulness
from extremal.benchmark.tasks.grid import Grid
from extremal.benchmark.tasks.pointing import Pointing
from extremal.benchmark.tasks.sanity import Sanity
from extremal.errors import ExtremalValueError
from extremal.explanations.effort import EFFORTS
from extremal.jobs.store import read_manifest
from extremal.masking.solvers import Path as PathSolver
from extremal.networks.network import Network
from support.errors import message_of
from support.terminal import call
from support.toys import Colours

SIDE = 32
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
QUICK = ExplanationMap(areas=(0.1, 0.2), name="path", solver=PathSolver(steps=12, polish=4, draws=2))


def preprocess(image):
    """Resize the full image to 32 px."""
    pixels = np.array(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 127.5 - 1


def colours():
    torch.manual_seed(0)
    return Network(Colours(), preprocess, tuple(COLOURS), "colours", [0.5] * 3, [0.5] * 3)


@pytest.fixture
def cutouts(tmp_path):
    """One disc of each colour, cut out."""
    for name, colour in COLOURS.items():
        picture = Image.new("RGBA", (60, 60))
        ImageDraw.Draw(picture).ellipse((2, 2, 57, 57), fill=(*colour, 255))
        (tmp_path / "cutouts").mkdir(exist_ok=True)
        picture.save(tmp_path / "cutouts" / f"{name}.png")
    return tmp_path / "cutouts"


@pytest.fixture
def pictures(tmp_path):
    """A disc of each colour on grey, and one grey image without a class."""
    (tmp_path / "pictures").mkdir()
    draw = random.Random(0)
    for name, colour in COLOURS.items():
        picture = Image.new("RGB", (64, 64), "grey")
        left, top = draw.randrange(24), draw.randrange(24)
        ImageDraw.Draw(picture).ellipse((left, top, left + 36, top + 36), fill=colour)
        picture.save(tmp_path / "pictures" / f"{name}.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "pictures" / "nothing.png")
    return tmp_path / "pictures"


def values(table):
    """{method: {title: value}}"""
    titles = [measure.title for measure in table.columns]
    return {
        line.method: dict(zip(titles, [entry.value for entry in line.values], strict=True)) for line in table.methods
    }


class TestPointing:
    def test_maps_on_the_object_hit_and_the_centre_is_chance(self, cutouts, tmp_path):
        methods = [METHODS["centre"], METHODS["gradient"], METHODS["grad-cam"], QUICK]
        found = values(run(Pointing(colours(), Scenes(cutouts, count=6)), methods, tmp_path / "out"))
        assert found["gradient"]["pointing"] == found["grad-cam"]["pointing"] == found["path"]["pointing"] == 1
        assert found["centre"]["pointing"] < 1
        assert found["gradient"]["energy"] > 0.8  # its colour and nothing else, but for mixed pixels at the edge
        assert found["path"]["energy"] > 2 * found["centre"]["energy"]

    def test_a_region_outside_of_what_is_seen_is_skipped_and_counted(self, cutouts, tmp_path):
        class Cropped(Scenes):
            def sample(self, key):
                sample = super().sample(key)
                for region in sample.regions[:1]:
                    region.mask[:] = False
                return sample

        table = run(Pointing(colours(), Cropped(cutouts, count=3)), [Gradient()], tmp_path / "out")
        assert (table.methods[0].judged, table.methods[0].skipped) == (3, 3)
        assert [count for _, count in table.reasons] == [3]

    def test_published_numbers_appear_for_the_paper_s_data(self, cutouts, tmp_path):
        table = run(Pointing(colours(), Scenes(cutouts, count=3)), [METHODS["grad-cam"]], tmp_path / "out")
        assert "| grad-cam | 100.0 | 86.6 | 100.0 | 74.0 |" in paper_table.published_numbers(
            table, "voc", "voc:vgg16-caffe"
        )
        assert "| 57.3 |" in paper_table.published_numbers(table, "coco", "coco:resnet50")
        assert paper_table.published_numbers(table, "coco", "colours") == ""


class TestGrid:
    @pytest.mark.parametrize("cell", [0, 20])
    def test_the_map_lies_in_the_cell_of_its_colour(self, pictures, tmp_path, cell):
        grid = Grid(colours(), Folder(pictures), count=3, cell=cell)
        found = values(run(grid, [METHODS["gradient"], METHODS["grad-cam"], METHODS["random"]], tmp_path / "out"))
        titles = [measure.title for measure in grid.table_columns]
        assert titles == ["share in the cell (chance 0.250)", "maximum in the cell"]
        for method in ("gradient", "grad-cam"):
            assert found[method][titles[0]] > 0.9
            assert found[method][titles[1]] == 1
        assert found["random"][titles[0]] == pytest.approx(0.25, abs=0.05)
        (x, *_), item = (grid.items("mosaic-00000")[0].x, grid.items("mosaic-00000")[0])
        side = (cell or SIDE) * 2
        assert x.shape == (3, side, side)
        assert item.truth.sum() == side * side / 4

    def test_too_few_classes_are_an_error(self, pictures, tmp_path):
        with pytest.raises(ExtremalValueError) as error:
            run(Grid(colours(), Folder(pictures), side=3), [Gradient()], tmp_path / "out")
        assert str(error.value) == (
            "a mosaic must have 9 images of distinct classes, colours finds only 4 classes with confidence 0.9; "
            "use more images or a smaller grid"
        )

    def test_without_confident_images_it_is_an_error(self, tmp_path):
        (tmp_path / "grey").mkdir()
        Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey" / "a.png")
        with pytest.raises(ExtremalValueError) as error:
            run(Grid(colours(), Folder(tmp_path / "grey")), [Gradient()], tmp_path / "out")
        assert str(error.value) == (
            "images must have a top class with a probability of at least 0.9, colours finds none among 1; lower "
            "--confidence or use images that it knows"
        )


class TestFaithfulness:
    def test_a_map_of_the_object_beats_a_random_one(self, pictures, tmp_path):
        task = Faithfulness(colours(), Folder(pictures))
        table = run(task, [METHODS["grad-cam"], METHODS["random"]], tmp_path / "out")
        assert table.methods[0].judged == 4  # the grey one has no class
        for measure, good, bad in zip(table.columns, table.methods[0].values, table.methods[1].values, strict=True):
            assert (good.value > bad.value) == measure.higher, measure.title

    def test_a_data_set_without_regions_is_refused(self, pictures):
        message = (
            "the pointing game must have a data set with regions, got folder, which has none; use voc:DIR, coco:DIR or "
            "scenes:DIR, or add --cutouts DIR"
        )
        assert message_of(Pointing, colours(), Folder(pictures)) == message

    def test_regions_of_a_part_are_enough(self, pictures, cutouts):
        joined = get_data_set(f"folder:{pictures}", count=2, cutouts=cutouts)
        assert joined.has_regions
        assert has_regions(f"folder:{pictures}", cutouts)
        assert not has_regions(f"folder:{pictures}")


class TestSanity:
    def test_stages_and_the_seed(self, pictures, tmp_path):
        task = Sanity(colours(), Folder(pictures))
        assert task.stages == ["head", "features"]
        before = {name: value.clone() for name, value in task.network.model.state_dict().items()}
        table = run(task, [METHODS["centre"], METHODS["gradient"], METHODS["random"]], tmp_path / "out")
        found = values(table)
        assert [scores.judged for scores in table.methods] == [4, 4, 4]  # images, not stages
        assert found["centre"]["all re-initialised"] == pytest.approx(1)  # it does not depend on the network
        assert found["gradient"]["all re-initialised"] < 0.9
        assert abs(found["random"]["another seed"]) < 0.2
        assert np.isnan(found["centre"]["another seed"])
        for name, value in task.network.model.state_dict().items():
            assert torch.equal(value, before[name])  # the caller's network is unchanged

    def test_a_method_without_a_map_at_a_stage_costs_that_row(self, pictures, tmp_path):
        class Choosy(Gradient):
            def __call__(self, network, x, target):
                if float(network.model.head.weight.detach().abs().max()) < 50:  # the head is re-initialised
                    raise ValueError("nothing to see")
                return super().__call__(network, x, target)

        task = Sanity(colours(), Folder(pictures))
        out = tmp_path / "out"
        table = run(task, [Choosy()], out, batch=2)
        rows = pq.read_table(out / "parts").to_pylist()
        assert len(rows) == 4 * 2  # pictures × stages
        assert {(row["status"], row["reason"]) for row in rows} == {("error", "ValueError: nothing to see")}
        assert table.methods[0].failed == 8

    def test_a_re_initialised_deep_network_still_depends_on_its_input(self):
        """Under `reset_parameters` the signal of twenty layers fades by 1e-5."""
        torch.manual_seed(0)
        layers = [part for _ in range(20) for part in (torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU())]
        deep = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), *layers, torch.nn.Flatten(), torch.nn.Linear(8 * 64, 2))
        network = Network(deep)
        again = metrics.reinitialise(network, len(metrics.stages(deep)))
        x = torch.randn(16, 3, 8, 8)
        with again.frozen() as run_, torch.no_grad():
            assert 0.05 < float(run_(x).std()) < 20


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: colours())
    monkeypatch.setitem(METHODS, "path", QUICK)

    return call


class TestCommand:
    FILES = ("figure.png", "lock", "manifest.json", "parts", "table.json", "table.md")

    def bench(self, command, cutouts, out, *more):
        return command(
            *("bench", "pointing", "--data", f"scenes:{cutouts}", "--count", 3, "--out", out),
            *(more or ("--methods", "centre,grad-cam")),
        )

    def test_rows_table_and_figure(self, command, cutouts, tmp_path):
        out = tmp_path / "out"
        code, output, error = self.bench(command, cutouts, out)
        assert (code, error) == (0, "")
        assert "grad-cam" in output
        assert {entry.name for entry in out.iterdir() if not entry.name.startswith(".")} == set(self.FILES)
        rows = pq.read_table(out / "parts").to_pylist()
        assert len(rows) == 3 * 2 * 2  # scenes × classes × methods
        assert {row["status"] for row in rows} == {"ok"}
        document = json.loads((out / "table.json").read_text())
        assert [entry["method"] for entry in document["methods"]] == ["centre", "grad-cam"]
        text = (out / "table.md").read_text()
        assert text.startswith(f"# pointing: colours, scenes:{cutouts}\n\n| method | pointing | difficult |")
        assert Image.open(out / "figure.png").width > 600

    def test_finished_work_is_not_done_again(self, command, cutouts, tmp_path, monkeypatch):
        self.bench(command, cutouts, tmp_path / "out")
        before = {name: (tmp_path / "out" / name).read_bytes() for name in ("table.md", "table.json")}
        monkeypatch.setattr(Pointing, "items", lambda *_: pytest.fail("all is done"))
        assert self.bench(command, cutouts, tmp_path / "out")[0] == 0
        assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before

    def test_other_settings_are_refused(self, command, cutouts, tmp_path):
        out = tmp_path / "out"
        self.bench(command, cutouts, out)
        code, output, error = self.bench(command, cutouts, out, "--methods", "centre,grad-cam", "--tolerance", 5)
        assert (code, output) == (2, "")
        assert "tolerance" in error
        assert "15.0" in error
        assert "5.0" in error

    def test_a_failing_method_is_reported_and_counted(self, command, cutouts, tmp_path, monkeypatch):
        def fails(*_):
            raise RuntimeError("no gradient for you")

        monkeypatch.setattr(Gradient, "__call__", fails)
        code, output, error = self.bench(command, cutouts, tmp_path / "out", "--methods", "gradient,centre")
        assert code == 0
        assert "RuntimeError: no gradient for you" in output
        assert error == "warning: 6 rows were not judged because of errors; table.md lists the reasons\n"

    def test_the_effort_is_that_of_our_explanations(self, command, cutouts, tmp_path):
        for effort in EFFORTS:
            out = tmp_path / effort
            assert self.bench(command, cutouts, out, "--limit", 1, "--methods", "consensus", "--effort", effort)[0] == 0
            settings = read_manifest(out)["methods"]["consensus"]
            assert settings["solver"] == EFFORTS[effort].solver("consensus").settings()
        costs = [pq.read_table(tmp_path / effort / "parts")["evaluations"].to_pylist()[0] for effort in EFFORTS]
        assert costs[0] < costs[1] < costs[2]

    def test_json_is_the_table(self, command, cutouts, tmp_path):
        out = tmp_path / "out"
        output = self.bench(command, cutouts, out, "--methods", "centre", "--json")[1]
        assert output == (out / "table.json").read_text()

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (("--methods", "gradcam"), "error: a method must be one of"),
            (("--methods", "centre,centre"), "error: methods must be distinct"),
            (("--layer", "nowhere", "--methods", "grad-cam"), ""),
            (
                ("--classes", "missing.json"),
                "error: --classes must be an existing file",
            ),
        ],
    )
    def test_bad_options(self, command, cutouts, tmp_path, more, message):
        code, output, error = self.bench(command, cutouts, tmp_path / "out", *more)
        if message:
            assert (code, output) == (2, "")
            assert error.startswith(message)
        else:  # an unknown layer is an error of each row
            assert "nowhere" in output

    def test_missing_packages_are_reported_first(self, command, cutouts, tmp_path, monkeypatch):
        monkeypatch.setattr("extremal.errors.find_spec", lambda name: None if name == "zennit" else name)
        code, output, error = self.bench(command, cutouts, tmp_path / "out")
        assert (code, output) == (2, "")
        assert error == (
            "error: the evaluation must have captum, scipy, skimage, zennit, zennit is not installed; "
            "pip install 'extremal[benchmark]'\n"
        )
        assert not (tmp_path / "out").exists()

    def test_the_help_names_every_method(self):
        from extremal.cli.options import METHOD_NAMES

        assert list(METHOD_NAMES) == list(METHODS)

    def test_an_unknown_task(self, command, cutouts, tmp_path):
        code, _, error = command("bench", "guessing", "--data", f"scenes:{cutouts}", "--out", tmp_path / "out")
        assert code == 2
        assert error == "error: a task must be one of pointing, grid, faithfulness, sanity, stability, got 'guessing'\n"

    def test_classes_with_another_name_in_the_network(self, command, cutouts, tmp_path):
        (cutouts / "red.png").rename(cutouts / "scarlet.png")
        code, _, error = self.bench(command, cutouts, tmp_path / "out")
        assert code == 2
        assert "colours does not know 'scarlet'" in error
        (tmp_path / "classes.json").write_text('{"scarlet": "red"}')
        chosen = ("--methods", "grad-cam", "--classes", tmp_path / "classes.json")
        assert self.bench(command, cutouts, tmp_path / "out", *chosen)[0] == 0
        rows = pq.read_table(tmp_path / "out" / "parts").to_pylist()
        assert {row["target"] for row in rows if row["label"] == "scarlet"} <= {0}

    @pytest.mark.parametrize("task", ["grid", "faithfulness", "sanity"])
    def test_the_other_tasks(self, command, pictures, tmp_path, task):
        out = tmp_path / "out"
        code, _, error = command(
            *("bench", task, "--data", f"folder:{pictures}", "--out", out, "--methods", "centre,gradient"),
            *(("--count", 2) if task == "grid" else ()),
        )
        assert (code, error) == (0, "")
        assert {"figure.png", "table.md", "confident.json"} <= {entry.name for entry in out.iterdir()}
        assert table_lines(out) == ["centre", "gradient"]


def table_lines(out):
    return [entry["method"] for entry in json.loads((out / "table.json").read_text())["methods"]]


class TestFigures:
    def test_methods_side_by_side(self, command, pictures, tmp_path):
        out = tmp_path / "methods.png"
        photos = [pictures / "red.png", pictures / "blue.png"]
        assert command("figures", "methods", *photos, "--methods", "centre,grad-cam", "--out", out) == (
            *(0, f"written: {out}\n"),
            "",
        )
        assert Image.open(out).size[0] > 300

    @pytest.mark.parametrize("figure", ["methods", "areas"])
    def test_images_of_a_folder(self, command, pictures, tmp_path, monkeypatch, figure):
        drawn, rising = [], SimpleNamespace(curve=lambda: SimpleNamespace(binary=(0.1, 1.0)))

        def write(_, images, *__):
            drawn.extend(images)
            return [rising] * len(images)

        monkeypatch.setattr(f"extremal.benchmark.bench.write_{figure.removesuffix('s')}_figure", write)
        code, _, error = command("figures", figure, pictures, "--out", tmp_path / "figure.png")
        assert (code, error) == (0, "")
        assert drawn == sorted(str(path) for path in pictures.iterdir())

    def test_masks_over_areas_and_which_curves_rise(self, command, pictures, tmp_path, monkeypatch):
        from extremal.masking.solvers import SOLVERS

        monkeypatch.setitem(SOLVERS, "consensus", QUICK.solver)
        out = tmp_path / "areas.png"
        code, output, _ = command("figures", "areas", pictures / "red.png", "--areas", "0.1,0.3,0.6", "--out", out)
        assert code == 0
        assert output.splitlines()[0] == (
            "1 of 1 curves rise until the full effect is kept (never falling by more than 5 % of it), 1 to the end"
        )
        assert output.splitlines()[-1] == f"written: {out}"
        assert Image.open(out).size[0] > 300


@pytest.mark.parametrize(
    ("effects", "until", "to_the_end"),
    [
        ((0.1, 0.5, 0.9, 1.0), True, True),
        ((0.5, 0.46, 0.9), True, True),  # by 4 % only
        ((0.5, 0.44, 0.9), False, False),
        ((0.5, 1.3, 1.0), True, False),  # includes places that count against the class
        ((1.3, 0.9), False, False),
        ((0.5, 0.48, 0.46, 0.44), False, False),  # slowly
    ],
)
def test_which_curves_rise(effects, until, to_the_end):
    explanation = SimpleNamespace(curve=lambda: SimpleNamespace(binary=effects))
    assert paper_figures.rises(explanation) == until
    assert paper_figures.rises(explanation, to_the_end=True) == to_the_end


def test_an_empty_table_has_dashes(tmp_path):
    import pyarrow as pa

    from extremal.benchmark.tasks.task import COMMON_COLUMNS

    rows = pa.schema(
        [pa.field(name, kind) for name, kind in {**COMMON_COLUMNS, "share": pa.float64()}.items()]
    ).empty_table()
    table = build_table((Grid(colours(), Folder.__new__(Folder)).table_columns[0],), ["path"], rows)
    assert "| path | – | 0 | 0 |" in table.markdown()
