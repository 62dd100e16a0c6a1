"""What a wish becomes: a view for each network and game, on a network whose right answer is known."""

import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from extremal import plots
from extremal.app.job_queue import Cancelled, Line, Progress, Report, State
from extremal.app.networks import Offered
from extremal.app.request import Answer, Seen, Wish, granted, photograph
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from extremal.masking.solvers import SOLVERS
from extremal.masking.solvers import Path as PathSolver
from extremal.networks.network import Network
from support.app_toys import LABELS, PATCH, SIDE, colours, photo
from support.toys import Boxes, box_mask, overlap, texture

AREAS = (0.12, 0.3)
OTHERS = ("yellow", "blue, sky", "green", "red")  # names in another order: another class carries each


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "path", PathSolver(steps=12, polish=4, draws=2, search=3))
    monkeypatch.setattr(plots, "write_figure", lambda _, path, image=0: Path(path).write_bytes(b"figure"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "answer").mkdir()
    return tmp_path / "answer"


def wish(**wanted: object) -> Wish:
    return Wish(**{"digest": "d", "title": "my cat.png", "target": 0, "networks": ("toy",), "areas": AREAS, **wanted})  # type: ignore[arg-type]


def grant(
    wanted: Wish,
    folder: Path,
    offered: dict[str, Offered] | None = None,
    report: Report = lambda progress: None,
    colour: str = "red",
) -> Answer:
    path = photo(folder.parent / "upload.png", colour)
    return granted(wanted, path, offered or {"toy": Offered("toy", colours())}, folder, report)


def saved(answer: Answer, view: int = 0) -> Explanation:
    return Explanation.load(answer.views[view].folder / "explanation.safetensors")


def test_one_view(folder: Path) -> None:
    answer = grant(wish(), folder)
    (view,) = answer.views
    assert view.heading == "red – preserve game, toy"
    assert view.sentence.startswith("12\u00a0% of the image keeps 100\u00a0% of the score; random regions of that size")
    assert sorted(entry.name for entry in view.folder.iterdir()) == [
        *("explanation.safetensors", "figure.png", "mask-0.12.png", "mask-0.3.png", "report.html"),
    ]
    assert "my cat.png" in (view.folder / "report.html").read_text(encoding="utf-8")
    assert answer.overlaps == ()
    found = saved(answer)
    assert (found.areas, found.target) == (AREAS, (0,))
    assert overlap(found.binary(0.12)[0, 0], box_mask(PATCH, (SIDE, SIDE))) > 0.8


def test_a_view_for_each_network_and_game(folder: Path) -> None:
    offered = {"one": Offered("one", colours()), "two": Offered("two", colours())}
    answer = grant(wish(networks=("one", "two"), games=("preserve", "delete")), folder, offered)
    assert [view.heading for view in answer.views] == [
        "red – preserve game, one",
        "red – delete game, one",
        "red – preserve game, two",
        "red – delete game, two",
    ]
    assert [saved(answer, number).settings["game"] for number in range(4)] == ["preserve", "delete"] * 2
    assert len({view.folder for view in answer.views}) == 4


def test_overlaps_are_those_of_the_first_two_views(folder: Path) -> None:
    answer = grant(wish(games=("preserve", "delete")), folder)
    one, other = saved(answer, 0), saved(answer, 1)
    assert [found.area for found in answer.overlaps] == list(AREAS)
    for found in answer.overlaps:
        assert found.iou == pytest.approx(overlap(one.binary(found.area)[0], other.binary(found.area)[0]))
    assert answer.overlaps[0].iou > 0.6  # both look at the patch


def test_no_overlaps_of_unequal_frames(folder: Path) -> None:
    def small(picture: Image.Image) -> torch.Tensor:
        return colours().preprocess(picture)[:, ::2, ::2]  # type: ignore[misc]

    half = Network(colours().model, small, LABELS, "half", [0.5] * 3, [0.5] * 3)
    offered = {"toy": Offered("toy", colours()), "half": Offered("half", half)}
    answer = grant(wish(networks=("toy", "half")), folder, offered)
    assert (len(answer.views), answer.overlaps) == (2, ())


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_each_game(folder: Path, game: str) -> None:
    answer = grant(wish(games=(game,)), folder)
    assert answer.views[0].heading == f"red – {game} game, toy"
    assert saved(answer).settings["game"] == game


def test_alternatives_and_perturbation_reach_the_result(folder: Path) -> None:
    found = saved(grant(wish(alternatives=2, perturbation="fade"), folder))
    assert len(found.alternatives) == 1
    assert found.settings["perturbation"] == "Fade()"


def test_refinement_reaches_the_result(folder: Path) -> None:
    answer = grant(wish(refine=True), folder)
    masks = [float(entry.stem.removeprefix("mask-")) for entry in answer.views[0].folder.glob("mask-*.png")]
    (certified,) = set(masks) - set(AREAS)
    assert 0.06 < certified < 0.12  # a ninth of the picture is red, and a part of that will do


def test_channels(folder: Path) -> None:
    (view,) = grant(wish(layer="features"), folder).views
    assert view.heading == "red – channels of features, preserve game, toy"
    assert view.sentence.startswith("1 of 4 channels of features keep 100\u00a0% of the score")
    assert sorted(entry.name for entry in view.folder.iterdir()) == [
        "channels.safetensors",
        "figure.png",
        "report.html",
    ]
    found = ChannelExplanation.load(view.folder / "channels.safetensors")
    assert found.smallest().channels == (0,)  # those that see red


def test_no_such_layer(folder: Path) -> None:
    with pytest.raises(ExtremalValueError) as caught:
        grant(wish(layer="nowhere"), folder)
    assert str(caught.value) == (
        "a layer must be the name of a module in colours, got 'nowhere'; did you mean features? "
        "extremal.layers(network) lists them"
    )


class TestClassesOfOthers:
    def test_are_carried_over_by_name(self, folder: Path) -> None:
        offered = {"toy": Offered("toy", colours()), "other": Offered("other", colours(OTHERS))}
        answer = grant(wish(networks=("toy", "other")), folder, offered)
        assert [view.heading for view in answer.views] == ["red – preserve game, toy", "red – preserve game, other"]
        assert [saved(answer, number).target for number in (0, 1)] == [(0,), (3,)]

    @pytest.mark.parametrize("labels", [("grey", "green", "sky", "yellow"), ("sky", "a", "b", "c")])
    def test_by_one_of_several_names(self, labels: tuple[str, ...]) -> None:
        one, other = Offered("one", colours()), Offered("other", colours(labels))
        assert other.class_like(one, 2) == labels.index("sky")

    def test_a_name_that_stands_twice_is_that_of_the_same_place(self) -> None:
        one = Offered("one", colours(("crane, bird", "green", "crane, machine", "yellow")))
        other = Offered("other", colours(("crane", "green", "crane", "red")))
        assert [other.class_like(one, index) for index in range(3)] == [0, 1, 2]

    def test_are_told_where_there_is_none(self, folder: Path) -> None:
        offered = {"toy": Offered("toy", colours()), "other": Offered("other", colours(("cat", "dog", "cow", "hen")))}
        with pytest.raises(ExtremalValueError) as caught:
            grant(wish(networks=("toy", "other")), folder, offered)
        assert str(caught.value) == "target must be a class of colours, got 'red'"

    def test_of_networks_without_names(self) -> None:
        one, other = Offered("one", colours(())), Offered("other", colours(()))
        assert other.class_like(one, 3) == 3
        with pytest.raises(ExtremalValueError) as caught:
            other.class_like(Offered("named", colours()), 3)
        assert str(caught.value) == "colours has no class names, got 'yellow'; give the class as an index"


class TestOnTheWay:
    def test_each_view_tells_its_number(self, folder: Path) -> None:
        stages = list[str]()
        grant(wish(games=("preserve", "delete")), folder, report=lambda progress: stages.append(progress.stage))
        assert stages[0] == "view 1 of 2: start"
        assert stages[-1] == "view 2 of 2: writing"
        for view in ("view 1 of 2: ", "view 2 of 2: "):
            for stage in ("start", "sweep", "polish", "evidence", "writing"):
                assert view + stage in stages

    @pytest.mark.parametrize("game", ["preserve", "delete"])
    def test_shows_what_is_left_of_the_photograph(self, folder: Path, game: str) -> None:
        shown = list[Progress]()
        grant(wish(games=(game,), areas=(0.12,)), folder, report=shown.append)
        seen = [progress for progress in shown if isinstance(progress.shown, Seen)]
        assert all(progress.done <= progress.total for progress in seen)
        last = seen[-1].shown
        assert last.picture.shape == (SIDE, SIDE, 3)
        assert last.picture[16, 28].tolist() == [255, 0, 0]
        left = float(last.masks[0].mean())
        assert left == pytest.approx(0.12 if game == "preserve" else 0.88, abs=0.02)

    def test_reports_of_equal_count_are_not_the_same(self) -> None:
        picture, masks = torch.zeros(2, 2, 3), torch.zeros(1, 2, 2)
        one, other = (Progress("sweep", 1, 2, Seen(picture, masks.clone())) for _ in range(2))
        assert one != other

    def test_nothing_is_shown_of_what_is_no_picture(self, folder: Path) -> None:
        def five(picture: Image.Image) -> torch.Tensor:
            return texture(5, SIDE, SIDE)

        net = Network(Boxes(texture(1, 5, SIDE, SIDE), [PATCH]), five, ("box", "none"), "five")
        shown = list[Progress]()
        (view,) = grant(wish(), folder, {"toy": Offered("toy", net)}, report=shown.append).views
        assert all(progress.shown is None for progress in shown)
        assert view.heading == "box – preserve game, toy"


class TestEndings:
    @pytest.mark.parametrize("stage", ["start", "sweep", "evidence", "smallest area", "writing"])
    def test_called_off_leaves_the_network_as_it_was(self, folder: Path, stage: str) -> None:
        one = Offered("toy", colours())
        before = {name: tensor.clone() for name, tensor in one.network.model.state_dict().items()}
        modules = list(one.network.model.modules())

        def report(progress: Progress) -> None:
            if progress.stage == stage:
                raise Cancelled

        with pytest.raises(Cancelled):
            grant(wish(refine=True), folder, {"toy": one}, report)
        assert list(folder.iterdir()) == []
        assert list(one.network.model.modules()) == modules
        assert not one.network.model.training
        for name, tensor in one.network.model.state_dict().items():
            assert torch.equal(tensor, before[name])
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        assert grant(wish(), folder, {"toy": one}).views

    def test_the_line_calls_it_off(self, folder: Path) -> None:
        begun: list[Progress] = []

        with Line() as line:

            def work(report: Report) -> Answer:
                def told(progress: Progress) -> None:
                    begun.append(progress)
                    if progress.stage == "sweep":
                        line.cancel("anna")
                    report(progress)

                return grant(wish(), folder, report=told)

            job = line.join("anna", work)
            job.wait(20)
            assert job.state is State.CANCELLED
        assert begun[-1].stage == "sweep"
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("target", [-1, 4, 10**9])
    def test_no_such_class(self, folder: Path, target: int) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            grant(wish(target=target), folder)
        assert str(caught.value) == f"target must lie in 0..3 for colours, got {target}"
        assert list(folder.iterdir()) == []

    def test_scores_that_are_not_finite(self, folder: Path) -> None:
        one = Offered("toy", colours())
        one.network.model.head.bias.data.fill_(torch.nan)  # type: ignore[union-attr]
        with pytest.raises(ExtremalValueError) as caught:
            grant(wish(), folder, {"toy": one})
        assert "finite" in str(caught.value)
        assert list(folder.iterdir()) == []


class TestPhotographs:
    NAME = "my cat.png"

    def told(self, path: Path) -> str:
        with pytest.raises(ExtremalValueError) as caught:
            photograph(path, self.NAME)
        assert str(path.parent) not in str(caught.value)  # not where the server keeps it
        return str(caught.value)

    def test_as_large_as_it_may_be(self, tmp_path: Path) -> None:
        Image.new("1", (8000, 5000)).save(tmp_path / "large.png")
        assert photograph(tmp_path / "large.png", "large").size == (8000, 5000)

    @pytest.mark.parametrize("size", [(8001, 5000), (15000, 14000)])
    def test_too_many_pixels(self, tmp_path: Path, size: tuple[int, int]) -> None:
        Image.new("1", size).save(tmp_path / "a.png")
        width, height = size
        problem = f"got {width}×{height} in" if width * height < 2 * Image.MAX_IMAGE_PIXELS else "got a larger one in"
        assert self.told(tmp_path / "a.png") == (
            f"an image must have at most 40 megapixels, {problem} 'my cat.png'; shrink it first"
        )

    def test_a_bomb_is_not_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("1", (8, 8)).save(tmp_path / "a.png")
        content = bytearray((tmp_path / "a.png").read_bytes())
        content[16:24] = struct.pack(">II", 60000, 60000)  # what its header claims to unpack to
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "a.png").write_bytes(content)
        monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
        assert self.told(tmp_path / "a.png") == (
            "an image must have at most 40 megapixels, got a larger one in 'my cat.png'; shrink it first"
        )

    @pytest.mark.parametrize("content", [b"<svg onload=alert(1)></svg>", b"GIF89a", b"%PDF-1.7", b"\x00" * 999])
    def test_no_picture(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        told = self.told(tmp_path / "a.png")
        assert told in (
            "an image must be in a format that Pillow reads, got 'my cat.png'; convert it to PNG or JPEG",
            "an image must be readable to its end, got 'my cat.png': not a GIF file; copy or convert it again",
        )

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        assert self.told(tmp_path / "a.png") == (
            "an image must not be empty, got 'my cat.png' with 0 bytes; copy it again"
        )

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
    def test_truncated(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        noise = texture(64, 64, 3).add(1).mul(127).byte().numpy()
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        told = self.told(path)
        assert "'my cat.png'" in told
        assert told.endswith(("; copy or convert it again", "; convert it to PNG or JPEG"))

    def test_gone(self, tmp_path: Path) -> None:
        assert self.told(tmp_path / "a.png") == "an image must be an existing file, got 'my cat.png'; check the path"
