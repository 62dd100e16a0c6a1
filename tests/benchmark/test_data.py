"""Small data sets in their original formats: regions to the pixel, and errors that name the broken file."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from extremal.benchmark.data import Coco, FieldsOfView, Folder, Scenes, Voc, check_data, get_data_set
from extremal.benchmark.data.classes import match_classes
from extremal.networks.network import Network
from support.errors import message_of

OBJECT = """<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>
<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


class TestVoc:
    OBJECTS = {  # noqa: RUF012
        "000001": [("dog", 0, (10, 20, 30, 40)), ("dog", 1, (1, 1, 60, 50)), ("person", 0, (5, 5, 60, 50))],
        "000002": [("cat", 1, (2, 2, 9, 9)), ("chair", 0, (20, 20, 29, 29))],
        "000004": [("cat", 0, (1, 1, 60, 50))],
    }

    @pytest.fixture
    def root(self, tmp_path):
        root = tmp_path / "VOCdevkit" / "VOC2007"
        for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (root / name).mkdir(parents=True)
        (root / "ImageSets/Main/test.txt").write_text("".join(f"{key}\n" for key in self.OBJECTS))
        for key, objects in self.OBJECTS.items():
            Image.new("RGB", (60, 50), "grey").save(root / "JPEGImages" / f"{key}.jpg")
            text = "".join(OBJECT.format(name=name, difficult=flag, box=box) for name, flag, box in objects)
            (root / "Annotations" / f"{key}.xml").write_text(
                f"<annotation><filename>{key}.jpg</filename><size><width>60</width><height>50</height></size>{text}</annotation>"
            )
        return root

    def test_regions_are_unions_of_boxes_that_are_not_flagged(self, root):
        data = Voc(root.parent.parent)
        assert data.keys() == tuple(self.OBJECTS)
        assert data.classes[:3] == ("aeroplane", "bicycle", "bird")
        assert len(data.classes) == 20
        dog, person = data.sample("000001").regions
        expected = np.zeros((50, 60), bool)
        for row in range(50):
            for column in range(60):
                expected[row, column] = (
                    10 <= column + 1 <= 30 and 20 <= row + 1 <= 40
                )  # boxes count from 1, ends included
        np.testing.assert_array_equal(dog.mask, expected)
        assert (dog.label, dog.difficult, dog.skip) == ("dog", True, "")
        assert (person.label, person.difficult, person.skip) == ("person", False, "")  # large

    def test_a_class_of_flagged_objects_is_skipped_but_counts_as_present(self, root):
        cat, chair = Voc(root).sample("000002").regions
        assert cat.skip == "every object is flagged difficult"
        assert chair.difficult
        assert chair.skip == ""
        (alone,) = Voc(root).sample("000004").regions
        assert not alone.difficult  # nothing else is there, and it is large

    def test_torchvision_reads_the_same_folders(self, root):
        from torchvision.datasets import VOCDetection

        reader = VOCDetection(str(root.parent.parent), year="2007", image_set="test")
        assert len(reader) == 3
        names = [item["name"] for item in reader[0][1]["annotation"]["object"]]
        assert names == ["dog", "dog", "person"]

    def test_what_is_missing_is_named(self, root):
        assert message_of(lambda: Voc(root / "nowhere")) == (
            f"VOC must be an existing folder, {str(root / 'nowhere')!r} is not; check the path"
        )
        (root / "JPEGImages" / "000002.jpg").unlink()
        assert message_of(lambda: Voc(root)) == (
            f"VOC must be unpacked completely, {str(root / 'JPEGImages' / '000002.jpg')!r} is missing; "
            "unpack all of its archives"
        )
        (root / "JPEGImages" / "000004.jpg").unlink()
        assert message_of(lambda: Voc(root)) == (
            f"VOC must be unpacked completely, {str(root / 'JPEGImages' / '000002.jpg')!r} and 1 more are missing; "
            "unpack all of its archives"
        )
        shutil.rmtree(root / "Annotations")
        assert (
            message_of(lambda: Voc(root))
            == f"VOC must be an existing folder, {str(root / 'Annotations')!r} is not; check the path"
        )
        (root / "ImageSets/Main/test.txt").unlink()
        assert "test.txt' is missing" in message_of(lambda: Voc(root))

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("<annotation><object>", "no element found"),
            ('<!DOCTYPE a [<!ENTITY x "y">]><annotation/>', "it defines a document type"),
            ("<annotation><object><name>dog</name></object></annotation>", "an object has no box"),
            ("<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>", "an object has no ymin"),
        ],
    )
    def test_broken_annotations_are_named(self, root, text, why):
        path = root / "Annotations" / "000001.xml"
        path.write_text(text)
        message = message_of(lambda: Voc(root).sample("000001"))
        assert message.startswith(f"an annotation must be VOC's XML, {str(path)!r} is not: {why}")

    def test_an_unknown_class_is_named(self, root):
        path = root / "Annotations" / "000001.xml"
        path.write_text(path.read_text().replace("dog", "dragon"))
        assert message_of(lambda: Voc(root).sample("000001")) == (
            f"an object must be of one of VOC's classes, {str(path)!r} has 'dragon'"
        )


class TestCoco:
    @pytest.fixture
    def root(self, tmp_path):
        (tmp_path / "annotations").mkdir()
        (tmp_path / "val2014").mkdir()
        self.square = np.zeros((50, 60), np.uint8)
        self.square[5:15, 10:30] = 1
        packed = rle.encode(np.asfortranarray(self.square))
        self.crowd = np.zeros((50, 60), np.uint8)
        self.crowd[30:, :] = 1
        counts, last = [], 0
        run = 0
        for value in self.crowd.flatten(order="F"):  # uncompressed run lengths, zeros first
            if value != last:
                counts.append(run)
                run, last = 0, value
            run += 1
        counts.append(run)
        annotations = [
            {"image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": [[20.0, 20, 40, 20, 40, 35, 20, 35]]},
            {
                "image_id": 7,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": {"size": [50, 60], "counts": packed["counts"].decode()},
            },
            {"image_id": 7, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [50, 60], "counts": counts}},
            {"image_id": 7, "category_id": 18, "iscrowd": 1, "segmentation": {"size": [50, 60], "counts": counts}},
            {"image_id": 9, "category_id": 18, "iscrowd": 0, "segmentation": [[0.0, 0, 59, 0, 59, 49, 0, 49]]},
        ]
        for number, annotation in enumerate(annotations):
            annotation.update(id=number + 1, bbox=[0, 0, 1, 1], area=1)
        self.content = {
            "images": [
                {"id": number, "file_name": f"COCO_val2014_{number:012d}.jpg", "width": 60, "height": 50}
                for number in (9, 7, 8)
            ],
            "annotations": annotations,
            "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        }
        for image in self.content["images"]:
            Image.new("RGB", (60, 50), "grey").save(tmp_path / "val2014" / image["file_name"])
        self.file = tmp_path / "annotations" / "instances_val2014.json"
        self.file.write_text(json.dumps(self.content))
        return tmp_path

    def test_regions_are_unions_of_masks_and_crowds_are_none(self, root, capsys):
        data = Coco(root)
        assert data.classes == ("person", "dog")  # by number
        assert data.keys() == ("COCO_val2014_000000000007.jpg", "COCO_val2014_000000000009.jpg")  # the other has none
        person, dog = data.sample(data.keys()[0]).regions
        canvas = Image.new("1", (60, 50))
        ImageDraw.Draw(canvas).rectangle((20, 20, 39, 34), fill=1)
        expected = np.asarray(canvas) | (self.square > 0)
        assert (person.mask != expected).mean() < 0.01  # a polygon's border is a matter of taste
        np.testing.assert_array_equal(person.mask[:18], expected[:18])  # run lengths are not
        assert not person.mask[45:].any()  # nor does the crowd count
        assert (person.difficult, person.skip) == (True, "")
        assert dog.skip == "there are only crowds of it"
        (alone,) = data.sample(data.keys()[1]).regions
        assert not alone.difficult
        assert capsys.readouterr().out == ""

    def test_what_is_missing_or_broken_is_named(self, root):
        first = root / "val2014" / "COCO_val2014_000000000007.jpg"
        first.unlink()
        assert message_of(lambda: Coco(root)) == (
            f"COCO must be unpacked completely, {str(first)!r} is missing; unpack all of its archives"
        )
        shutil.rmtree(root / "val2014")
        assert message_of(lambda: Coco(root)) == (
            f"COCO must be an existing folder, {str(root / 'val2014')!r} is not; check the path"
        )
        self.content["annotations"][0]["image_id"] = 5
        self.file.write_text(json.dumps(self.content))
        assert message_of(lambda: Coco(root)) == (
            f"an annotation must be of a listed image and class, {str(self.file)!r} has annotation 1 of image_id 5, "
            "which is not; download it again"
        )
        self.file.write_text("{")
        assert message_of(lambda: Coco(root)).startswith(
            f"COCO's annotations must be its JSON, {str(self.file)!r} is not: JSONDec"
        )
        self.file.unlink()
        assert message_of(lambda: Coco(root)) == (
            f"COCO must be unpacked completely, {str(self.file)!r} is missing; unpack all of its archives"
        )

    def test_a_mask_of_another_size_is_named(self, root):
        self.content["images"][1]["height"] = 40
        self.file.write_text(json.dumps(self.content))
        data = Coco(root)
        assert message_of(lambda: data.sample(data.keys()[0])).startswith(
            "an annotation must have a mask that pycocotools reads, "
            "annotation 1 of COCO_val2014_000000000007.jpg has none: "
        )


class TestScenes:
    @pytest.fixture
    def root(self, tmp_path):
        for name, colour in (("cat/a.png", "red"), ("cat/b.png", "orange"), ("dog/c.png", "blue")):
            picture = Image.new("RGBA", (80, 60), (0, 0, 0, 0))
            ImageDraw.Draw(picture).ellipse((20, 10, 60, 50), fill=colour)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            picture.save(tmp_path / name)
        Image.new("RGB", (10, 10)).save(tmp_path / "no-alpha.png")
        return tmp_path

    def test_objects_lie_where_their_masks_say(self, root):
        data = Scenes(root, count=6, size=96)
        assert data.classes == ("cat", "dog")
        for key in data.keys():  # noqa: SIM118
            sample = data.sample(key)
            pixels = np.asarray(sample.image).astype(int)
            colourful = pixels.max(2) - pixels.min(2) > 120
            cat, dog = sample.regions
            assert (cat.label, dog.label) == ("cat", "dog")
            assert not (cat.mask & dog.mask).any()
            either = cat.mask | dog.mask
            assert (colourful & either).sum() / either.sum() > 0.9
            assert (colourful & ~either).sum() / either.sum() < 0.1
            assert pixels[dog.mask][:, 2].mean() > pixels[cat.mask][:, 2].mean()
            assert cat.difficult
            assert dog.difficult

    def test_a_seed_is_a_scene_whatever_the_count(self, root):
        one, more = Scenes(root, count=2, size=64), Scenes(root, count=5, size=64)
        for key in one.keys():  # noqa: SIM118
            assert one.sample(key).image.tobytes() == more.sample(key).image.tobytes()
        assert one.sample("scene-00000").image.tobytes() != one.sample("scene-00001").image.tobytes()

    def test_a_table_names_the_classes(self, root):
        (root / "cutouts.json").write_text(json.dumps({"cat/a.png": "tabby", "dog/c.png": "poodle"}))
        assert Scenes(root).classes == ("poodle", "tabby")
        (root / "cutouts.json").write_text(json.dumps({"cat/x.png": "tabby"}))
        assert "x.png' is missing" in message_of(lambda: Scenes(root))
        (root / "cutouts.json").write_text(json.dumps({"../x.png": "tabby"}))
        assert message_of(lambda: Scenes(root)) == (
            "a cut-out must lie in its folder, cutouts.json names '../x.png'; move it there"
        )
        (root / "cutouts.json").write_text("[1]")
        assert message_of(lambda: Scenes(root)).startswith("cutouts.json must be a JSON object {path: class}, got ")

    def test_too_few_or_empty_cut_outs_are_named(self, root):
        shutil.rmtree(root / "dog")
        assert message_of(lambda: Scenes(root)) == (
            f"a folder of cut-outs must hold two classes or more, {str(root)!r} holds 1; add images with "
            "transparency, or a cutouts.json that names their classes"
        )
        Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(root / "dog.png")
        message = message_of(lambda: [Scenes(root, count=9, size=64).sample(f"scene-{seed:05d}") for seed in range(9)])
        assert message == f"a cut-out must have opaque pixels, {str(root / 'dog.png')!r} has none; remove it"


class TestFolder:
    def test_classes_are_sub_folders_and_regions_unknown(self, tmp_path):
        for name in ("cat/1.png", "cat/2.jpg", "dog/1.png", "top.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        (tmp_path / "notes.txt").write_text("not a picture")
        data = Folder(tmp_path)
        assert data.keys() == ("cat/1.png", "cat/2.jpg", "dog/1.png", "top.png")
        assert data.classes == ("cat", "dog")
        assert [region.label for region in data.sample("dog/1.png").regions] == ["dog"]
        assert data.sample("top.png").regions == ()
        assert Folder(tmp_path, limit=2).keys() == ("cat/1.png", "cat/2.jpg")
        assert Folder(tmp_path, limit=2).settings() != data.settings()
        (tmp_path / "dog/1.png").write_bytes(b"no picture")
        assert "1.png'; convert it to PNG or JPEG" in message_of(lambda: data.sample("dog/1.png"))

    def test_an_empty_folder_is_an_error(self, tmp_path):
        assert message_of(lambda: Folder(tmp_path)).startswith("a folder of images must hold some (.png, .jpg, ")


class TestFieldsOfView:
    @pytest.mark.parametrize("size", [(224, 224), (300, 451), (512, 400), (1000, 700)])
    def test_resizing_and_cropping_is_followed_to_a_third_of_a_pixel(self, size):
        from torchvision import transforms

        crop = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
        field = FieldsOfView(Network(torch.nn.Identity(), crop)).get(size)
        ratio = min(size) / 256
        for axis in (0, 1):
            length = int(size[axis] * 256 / min(size))
            start = round((length - 224) / 2)
            for place in (0, 100, 223):
                expected = (place + start + 0.5) * size[axis] / length - 0.5
                found = field.offset[axis] + field.scale[axis] * place
                assert found == pytest.approx(expected, abs=0.34 * max(1, ratio))

    def test_a_region_is_seen_where_the_network_sees_it(self):
        from extremal import zoo

        network = zoo.load("embedded")
        mask = np.zeros((300, 451), bool)
        mask[100:180, 200:330] = True
        white = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
        seen = network.prepare(Image.fromarray(white))[0, 0].numpy() > 0
        found = FieldsOfView(network).get((300, 451)).region(mask)
        assert (found != seen).sum() / seen.sum() < 0.02

    def test_without_preprocessing_nothing_moves(self):
        fields = FieldsOfView(Network(torch.nn.Identity()))
        mask = np.random.default_rng(0).random((40, 70)) < 0.5
        np.testing.assert_array_equal(fields.get((40, 70)).region(mask), mask)
        assert fields.get((40, 70)).tolerance(15) == pytest.approx((15, 15), rel=0.01)
        assert fields.get((40, 70)) is fields.get((40, 70))

    def test_padding_is_outside_of_the_picture(self):
        from torchvision import transforms

        pad = transforms.Compose([transforms.Pad(16), transforms.ToTensor()])
        found = FieldsOfView(Network(torch.nn.Identity(), pad)).get((40, 50)).region(np.ones((40, 50), bool))
        assert found.shape == (72, 82)
        assert found.sum() == 40 * 50
        assert found[16:56, 16:66].all()

    @pytest.mark.parametrize("kind", ["flip", "rotation"])
    def test_other_preprocessing_is_refused(self, kind):
        from torchvision import transforms

        change = transforms.RandomHorizontalFlip(1.0) if kind == "flip" else transforms.RandomRotation((30, 30))
        network = Network(torch.nn.Identity(), transforms.Compose([change, transforms.ToTensor()]), name="toy")
        assert message_of(lambda: FieldsOfView(network).get((60, 60))).startswith(
            "a preprocessing must only resize, crop and pad, so that regions can follow it, toy's does more: a ramp "
        )


def test_data_are_named_by_kind_and_path(tmp_path):
    assert message_of(lambda: get_data_set("cocoo:x")) == (
        "data must be voc:DIR, coco:DIR, folder:DIR, scenes:DIR or photographs, got 'cocoo:x'; did you mean coco:DIR?"
    )
    assert message_of(lambda: get_data_set("pictures")) == (
        "data must be voc:DIR, coco:DIR, folder:DIR, scenes:DIR or photographs, got 'pictures'; e.g. folder:pictures"
    )
    assert message_of(lambda: get_data_set("scenes:")).endswith("got 'scenes:'; name its folder, e.g. scenes:pictures")
    assert message_of(lambda: get_data_set("nope:img")).endswith("got 'nope:img'; e.g. folder:pictures")
    assert message_of(lambda: get_data_set("photos")).endswith("got 'photos'; did you mean photographs?")
    assert message_of(lambda: get_data_set(str(tmp_path))).endswith(f"for the images of a folder: folder:{tmp_path}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert get_data_set(f"folder:{tmp_path}").keys() == ("a.png",)


def test_scenes_of_two_folders_are_not_joined(tmp_path):
    for folder, names in (("a", ("cat", "dog")), ("b", ("hen", "cow"))):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("RGBA", (8, 8), "red").save(tmp_path / folder / f"{name}.png")
    for read in (get_data_set, check_data):
        assert message_of(lambda read=read: read(f"scenes:{tmp_path / 'a'}", cutouts=tmp_path / "b")) == (
            "joined data must have distinct keys, 'scene-00000' names 2 images; put the cut-outs of several folders "
            "into one, or rename the images"
        )


def test_classes_are_found_in_the_network_or_named_in_the_error():
    network = Network(torch.nn.Identity(), labels=("tench", "tabby, tabby cat"), name="toy")
    assert match_classes(network, ["tabby"]) == {"tabby": 1}
    assert match_classes(network, ["fish", "cat"], {"fish": 0, "cat": "tabby cat"}) == {"fish": 0, "cat": 1}
    assert match_classes(Network(torch.nn.Identity()), ["b", "a"]) == {"b": 0, "a": 1}
    for output, got in ((99, "in 0..1 for toy, got 99"), (-1, "in 0..1 for toy, got -1"), (True, "or names of toy's")):
        message = message_of(lambda output=output: match_classes(network, ["cat"], {"cat": output}))
        assert message.startswith("--classes must be indices ")
        assert got in message
    assert message_of(lambda: match_classes(Network(torch.nn.Identity()), ["cat"], {"cat": "tabby"}))
    assert message_of(lambda: match_classes(network, ["tabby", "sofa", "bus"])) == (
        "a data set's classes must be known to the network, toy does not know 'sofa' (and 1 more); use a network that "
        "was trained on them, or map them to its classes with --classes FILE.json"
    )
