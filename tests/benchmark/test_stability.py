"""The task `stability`: masks that hold still or move, and the effect that they keep."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from extremal import zoo
from extremal.benchmark.baselines import METHODS, AreaMasks, Centre, ExplanationMap, Maps, PenaltyMap, Random
from extremal.benchmark.baselines.method import MaskMethod, compute_masks
from extremal.benchmark.data import Folder, JoinedData, Photographs, Scenes, get_data_set
from extremal.benchmark.metrics.shifts import shift_image, shifted_iou
from extremal.benchmark.runner import run
from extremal.benchmark.tasks.stability import (
    FALLS,
    MEASURES,
    StabilityTask,
    fall_share,
    kept_effects,
    seen_inputs,
    unseen_inputs,
)
from extremal.benchmark.tasks.task import mask_items
from extremal.errors import ExtremalValueError
from extremal.explanations.explain import explain
from extremal.masking.perturbations import PERTURBATIONS
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Penalty as PenaltySolver
from extremal.networks.network import Network
from support.terminal import call
from support.toys import Colours

SIDE, AREAS = 32, (0.1, 0.3)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
FEW_STEPS = PathSolver(steps=8, polish=2, draws=2)


def preprocess(image):
    """Resize to 36 px and crop the middle 32 px."""
    pixels = np.array(image.resize((SIDE + 4,) * 2, Image.Resampling.BILINEAR))[2:-2, 2:-2]
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 127.5 - 1


def colours():
    torch.manual_seed(0)
    return Network(Colours(), preprocess, tuple(COLOURS), "colours", [0.5] * 3, [0.5] * 3)


@pytest.fixture
def pictures(tmp_path):
    """Two discs on grey, in folders of their classes."""
    for name, place in (("red", 20), ("blue", 40)):
        picture = Image.new("RGB", (108, 108), "grey")
        ImageDraw.Draw(picture).ellipse((place, place, place + 36, place + 36), fill=COLOURS[name])
        (tmp_path / "pictures" / name).mkdir(parents=True)
        picture.save(tmp_path / "pictures" / name / "disc.png")
    return tmp_path / "pictures"


class LowestBit(Centre):
    """Places by the last bit of their pixels."""

    def __call__(self, network, x, target):
        bits = ((x + 1) * 127.5).round() % 2
        return Maps(
            bits.sum(1, keepdim=True) + 1e-3 * torch.rand(x.shape[2:], generator=torch.Generator().manual_seed(0)), 0
        )


class Coloured(Centre):
    """Places by their own colour, an ideal method for this network."""

    def __call__(self, network, x, target):
        weights = torch.tensor([Colours.COLOURS[t] for t in target], dtype=x.dtype)
        return Maps((x * weights[..., None, None]).sum(1, keepdim=True), 1)


def values(table):
    """{method: {title: value}}"""
    titles = [column.full_title for column in table.columns]
    return {line.method: dict(zip(titles, [v.value for v in line.values], strict=True)) for line in table.methods}


def test_methods_that_hold_still_and_one_that_does_not(pictures, tmp_path):
    task = StabilityTask(colours(), Folder(pictures), AREAS)
    methods = [Centre(), LowestBit(name="lowest-bit"), Coloured(name="coloured")]
    table = run(task, methods, tmp_path / "out")
    found = values(table)
    noise, shift, unseen, blur, ways = (f"{heading}, median: 10 %" for heading in MEASURES.values())
    assert found["centre"][noise] == 1
    assert found["centre"][shift] < 1  # it stays in the frame, and not on the object
    assert found["coloured"][noise] > 0.8
    assert found["coloured"][shift] > 0.8
    assert found["coloured"][unseen] > 0.9
    assert found["coloured"][blur] > 0.9
    assert found["coloured"][ways] > 0.9
    assert found["lowest-bit"][noise] < 0.5
    for heading in FALLS.values():
        assert found["coloured"][f"{heading}: targets"] == 0
    assert len(table.split()) == 14
    text = table.markdown()
    assert text.count("| method |") == 14
    assert "**IoU with a copy with one grey level of noise, worst tenth**\n\n| method | 10 % | 30 % | items |" in text


def test_the_extremal_methods_give_their_own_masks():
    network, x = colours(), torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own = ExplanationMap(solver=FEW_STEPS)
    found = compute_masks(own, network, x, [0, 1], AREAS)
    expected = explain(network, x, [0, 1], areas=AREAS, solver=FEW_STEPS)
    for column, area in enumerate(AREAS):
        assert torch.equal(found.values[:, column], expected.binary(area) > 0)
    assert found.evaluations == sum(expected.settings["evaluations"].values())
    penalty = PenaltyMap(solver=PenaltySolver(steps=2))
    assert compute_masks(penalty, network, x, [0, 1], AREAS).values.flatten(2).sum(2).tolist() == [[102, 307]] * 2


def test_a_map_is_cut_at_each_area():
    found = compute_masks(Random(), colours(), torch.rand(2, 3, SIDE, SIDE), [0, 1], AREAS)
    assert found.values.dtype == torch.bool
    assert found.values.flatten(2).sum(2).tolist() == [[102, 307]] * 2
    assert bool((found.values[:, 0] <= found.values[:, 1]).all())

    class Broken(Centre):
        def __call__(self, network, x, target):
            return Maps(torch.full((len(x), 1, *x.shape[2:]), math.nan), 0)

    with pytest.raises(ValueError, match="a map must be finite, centre gave NaN"):
        compute_masks(Broken(), colours(), torch.rand(1, 3, SIDE, SIDE), [0], AREAS)


def test_copies_of_an_item_are_its_own(pictures):
    class Marks(Centre):
        """The first area's mask is the pixel whose number is the input's first value."""

        def find_masks(self, network, x, target, areas):
            marks = torch.zeros(len(x), len(areas), 1, SIDE * SIDE, dtype=torch.bool)
            for row, number in enumerate(x[:, 0, 0, 0].long()):
                marks[row, :, 0, number] = True
            return AreaMasks(marks.view(len(x), len(areas), 1, SIDE, SIDE), 10 * len(x))

    task = StabilityTask(colours(), Folder(pictures), AREAS)
    items = [item for key in task.data.keys() for item in task.items(key)]  # noqa: SIM118
    for number, item in enumerate(items):
        for offset, x in enumerate((item.x, *item.copies)):
            x[:, 0, 0, 0] = 3 * number + offset
    found = mask_items(Marks(), task.network, items, AREAS)
    assert [masks.masks[:, 0, 0].flatten(1).int().argmax(1).tolist() for masks in found] == [[0, 1, 2], [3, 4, 5]]
    assert [masks.evaluations for masks in found] == [30, 30]


def test_noisy_and_shifted_copies(pictures):
    task = StabilityTask(colours(), Folder(pictures), AREAS)
    (item,) = task.items("red/disc.png")
    noisy, shifted = item.copies
    assert 0 < float((noisy - item.x).abs().max()) <= 1.01 / 127.5
    down, right = task._shift(item.key, task._fields.get((108, 108)))
    assert max(abs(down), abs(right)) == 1  # 4 px at 224 px
    inner = slice(2, -2)
    moved = item.x.roll((-down, -right), (2, 3))
    torch.testing.assert_close(shifted[..., inner, inner], moved[..., inner, inner], rtol=0, atol=0.05)
    assert torch.equal(task.items("red/disc.png")[0].copies[1], shifted)


def test_shifts_and_their_iou():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8))
    pixels, shifted = np.asarray(image), np.asarray(shift_image(image, 2, -3))
    assert np.array_equal(shifted[:-2, 3:], pixels[2:, :-3])
    half = np.asarray(shift_image(Image.fromarray(np.arange(0, 200, 10, dtype=np.uint8)[None].repeat(9, 0)), 0, 0.5))
    assert half[4, 5:-5].tolist() == list(range(55, 150, 10))
    mask = torch.zeros(2, 10, 10, dtype=torch.bool)
    mask[0, 4:6, 4:6] = True
    mask[1, 0, :] = True
    for down, right in ((1, 2), (-1, 2), (-2, -1), (0, 0)):
        brought = mask.roll((-down, -right), (1, 2))
        assert float(shifted_iou(mask, brought, down, right)[0]) == 1
    assert math.isnan(float(shifted_iou(mask, mask.roll((-1, 0), (1, 2)), 1, 0)[1]))  # outside of the common part
    assert float(shifted_iou(mask[0], mask[0], 0, 1)) == pytest.approx(1 / 3)


def test_effects_are_shares_of_the_margin():
    x = torch.ones(1, 1, 2, 2)
    masks = torch.tensor([[[True, False], [False, False]], [[True, True], [True, False]]])
    margin = lambda inputs: 4 * inputs.flatten(1).mean(1).double()  # noqa: E731
    assert kept_effects(margin, x, torch.zeros_like(x), masks).tolist() == [0.25, 0.75]
    assert bool(kept_effects(margin, x, 0.8 * x, masks).isnan().all())  # a margin of 0.8 is too small
    assert [fall_share(torch.tensor(row)) for row in ([0.1, 0.5], [0.5, 0.46, 0.9], [1.3, 1.2])] == [0, 0, 1]
    assert math.isnan(fall_share(torch.tensor([math.nan, 1.0])))


def test_seen_inputs_are_those_of_the_default_perturbations():
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = seen_inputs(x)
    assert list(found) == ["blur", "fade", "noise"]
    for name, destroyed in found.items():
        perturb = PERTURBATIONS[name](x)
        assert torch.equal(destroyed, perturb(torch.zeros(1, 1, 1, SIDE, SIDE))[:, 0])


def test_unseen_inputs():
    x = torch.rand(1, 3, 64, 64)
    black, white, mosaic, blur = unseen_inputs(colours(), x)
    assert (float(black.unique()), float(white.unique())) == (-1, 1)
    assert torch.allclose(mosaic[..., :8, :8], x[..., :8, :8].mean((2, 3), keepdim=True))  # 28 px at 224 px
    assert float(blur.std()) < 0.05
    plain = unseen_inputs(Network(nn.Flatten()), x)
    assert (float(plain[0].unique()), float(plain[1].unique())) == (float(x.min()), float(x.max()))


def test_data(pictures, tmp_path):
    photographs = Photographs()
    assert len(photographs.keys()) == 5
    assert len(photographs.classes) == 7
    sample = photographs.sample("camera")
    assert (sample.image.mode, [region.label for region in sample.regions]) == ("RGB", ["tripod"])
    assert isinstance(get_data_set("photographs", limit=2), Photographs)
    joined = JoinedData((Folder(pictures), Photographs()), limit=3)
    assert joined.keys() == ("blue/disc.png", "red/disc.png", "chelsea")
    assert joined.sample("red/disc.png").image.size == (108, 108)
    assert joined.classes[:2] == ("blue", "red")
    for name in ("a", "b"):
        (tmp_path / "cutouts").mkdir(exist_ok=True)
        Image.new("RGBA", (60, 60), "red").save(tmp_path / "cutouts" / f"{name}.png")
    with_scenes = get_data_set("photographs", count=2, cutouts=tmp_path / "cutouts")
    assert with_scenes.keys()[-2:] == Scenes(tmp_path / "cutouts", count=2).keys()
    assert len(with_scenes.keys()) == 7


def test_a_photograph_that_cannot_be_read(monkeypatch):
    import skimage.data

    monkeypatch.setattr(skimage.data, "chelsea", lambda: (_ for _ in ()).throw(OSError("no connection")))
    with pytest.raises(ExtremalValueError, match="could not read 'chelsea': no connection; connect once"):
        Photographs().sample("chelsea")


class TestCommand:
    @pytest.fixture
    def command(self, monkeypatch):
        monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: colours())
        return call

    def bench(self, command, pictures, out, *more):
        options = ("--data", f"folder:{pictures}", "--methods", "centre,gradient", "--areas", "0.1,0.3")
        return command("bench", "stability", "--out", out, *options, *more)

    def test_rows_tables_and_figure_are_resumed(self, command, pictures, tmp_path, monkeypatch):
        out = tmp_path / "out"
        code, output, error = self.bench(command, pictures, out)
        assert (code, error) == (0, "")
        assert output.count("worst tenth") >= 4
        rows = pq.read_table(out / "parts").to_pylist()
        assert len(rows) == 2 * 2
        assert {row["status"] for row in rows} == {"ok"}
        assert {row["noise_10"] for row in rows if row["method"] == "centre"} == {1.0}
        document = json.loads((out / "table.json").read_text())
        assert len(document["methods"][0]["values"]) == 5 * 2 * 2 + 4
        assert Image.open(out / "figure.png").height < 3000
        before = (out / "table.json").read_bytes()
        monkeypatch.setattr(StabilityTask, "items", lambda *_: pytest.fail("all is done"))
        assert self.bench(command, pictures, out)[0] == 0
        assert (out / "table.json").read_bytes() == before

    def test_the_same_rows_twice(self, command, pictures, tmp_path):
        def rows(out):
            self.bench(command, pictures, out, "--methods", "random,gradient")
            return [{**row, "seconds": 0} for row in pq.read_table(out / "parts").to_pylist()]

        assert rows(tmp_path / "a") == rows(tmp_path / "b")

    def test_the_top_class_is_asked_without_classes(self, command, pictures, tmp_path):
        out = tmp_path / "out"
        assert self.bench(command, pictures / "red", out)[0] == 0
        assert {row["label"] for row in pq.read_table(out / "parts").to_pylist()} == {"red"}

    def test_other_tasks_need_data(self, command, tmp_path):
        code, _, error = command("bench", "pointing", "--out", tmp_path / "out")
        assert code == 2
        assert error.startswith("error: data must be voc:DIR, coco:DIR, folder:DIR, scenes:DIR or photographs, got ''")


def test_methods_are_unchanged_where_they_have_no_masks():
    with_masks = {name for name, method in METHODS.items() if isinstance(method, MaskMethod)}
    assert with_masks == {"consensus", "path", "penalty"}
    assert isinstance(Centre()(colours(), torch.rand(1, 3, 8, 8), 0).values, Tensor)
