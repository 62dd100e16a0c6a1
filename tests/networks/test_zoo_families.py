"""Networks of torchvision beyond classifiers, and of the user's own modules."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import zoo
from extremal.errors import ExtremalTypeError
from support.families import assert_explains_and_restores, load_error, noise_image

pytestmark = pytest.mark.usefixtures("one_thread")


class TestTorchvision:
    def test_segmenters_and_detectors_are_listed(self) -> None:
        result = zoo.names("torchvision:")
        assert {f"torchvision:{name}" for name in ("fcn_resnet50", "deeplabv3_resnet101", "maskrcnn_resnet50_fpn")} <= {
            *result
        }
        assert {"torchvision:r3d_18", "torchvision:mvit_v2_s"} <= {*result}, "networks on clips"
        assert not any(name.removeprefix("torchvision:").startswith(("raft", "quantized")) for name in result)
        assert len(result) == len(set(result))

    def test_a_segmenter_returns_the_scores_of_each_place(self) -> None:
        net = zoo.load("torchvision:lraspp_mobilenet_v3_large", "random")
        assert [net.index(name) for name in ("__background__", "cat")] == [0, 8]
        x = net.prepare(noise_image(600))
        assert x.shape == (1, 3, 520, 520)
        shown = net.to_images_or_empty(x)[0].numpy()
        assert np.abs(shown.mean((0, 1)) - np.array(noise_image()).mean((0, 1))).max() < 4
        x = torch.rand(2, 3, 64, 64)
        with net.frozen() as run, torch.no_grad():
            scores = run.evaluate(x)
            assert isinstance(scores, Tensor)
            assert scores.shape == (2, 21, 64, 64)
            torch.testing.assert_close(run(x), scores.mean((2, 3)))
        assert not net.mirror
        assert_explains_and_restores(net, x[:1])

    def test_a_detector_returns_boxes_and_takes_pixels(self) -> None:
        net = zoo.load("torchvision:ssdlite320_mobilenet_v3_large", "random")
        assert (net.labels[1], len(net.labels), net.mirror) == ("person", 91, False)
        picture = noise_image(64)
        x = net.prepare(picture)
        assert np.array_equal(net.to_images_or_empty(x)[0], np.array(picture))  # its own size, pixels as they are
        assert net.prepare(Image.new("RGB", (1000, 640))).shape == (
            1,
            3,
            320,
            500,
        )  # its short side as the network sees
        net.model.score_thresh, net.model.transform.fixed_size = 0.0, (96, 96)  # for speed
        torch.manual_seed(0)
        for module in net.model.modules():  # as it is made, without weights, it says the same of all pictures
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        with net.frozen() as run, torch.no_grad():
            (result,) = run.evaluate(x)  # type: ignore[misc]
        assert {"boxes", "labels", "scores"} == set(result)
        assert result["boxes"].shape == (len(result["scores"]), 4)

        def confidence(output: list[dict[str, Tensor]]) -> Tensor:
            return torch.stack([one["scores"].sum() for one in output])

        assert_explains_and_restores(net, x, confidence)

    def test_short_sides_are_those_of_the_detector(self) -> None:
        net = zoo.load("torchvision:fasterrcnn_mobilenet_v3_large_fpn", "random")
        assert net.prepare(Image.new("RGB", (900, 850))).shape == (1, 3, 800, 847)
        assert net.prepare(Image.new("RGB", (40, 30))).shape == (1, 3, 30, 40)

    def test_weights_from_a_file_with_an_auxiliary_head(self, tmp_path: Path) -> None:
        from torchvision.models.segmentation import fcn_resnet50

        torch.manual_seed(3)
        whole = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
        torch.save(whole.state_dict(), tmp_path / "fcn.pt")
        net = zoo.load("torchvision:fcn_resnet50", tmp_path / "fcn.pt")
        x = torch.rand(1, 3, 48, 48)
        with torch.no_grad():
            assert torch.equal(net.model(x), whole(x)["out"])

    @pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"])
    def test_random_weights_are_the_same_at_every_load(self, name: str) -> None:
        first = zoo.load(f"torchvision:{name}", "random").weight_hash()
        torch.manual_seed(6)
        assert zoo.load(f"torchvision:{name}", "random").weight_hash() == first


class TestFactories:
    @pytest.fixture(autouse=True)
    def _nets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mynets").mkdir()
        (tmp_path / "mynets" / "__init__.py").write_text("")
        (tmp_path / "mynets" / "models.py").write_text(
            "import random\n"
            "import numpy as np\n"
            "import torch\n"
            "from torch import nn\n"
            "from extremal import Network\n"
            "SIDE = 8\n"
            "def make_net():\n"
            "    random.random(), np.random.random()\n"
            "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))\n"
            "def named():\n"
            "    return Network(make_net(), labels=('cat', 'dog', 'car'), name='mine')\n"
            "def sized(side):\n"
            "    return make_net()\n"
            "def nothing():\n"
            "    return None\n"
            "class Nets:\n"
            "    small = staticmethod(make_net)\n"
        )
        (tmp_path / "mynets" / "broken.py").write_text("1 / 0\n")
        (tmp_path / "mynets" / "lacking.py").write_text("import surely_not_installed\n")
        (tmp_path / "timm.py").write_text("raise SystemExit\n")
        monkeypatch.syspath_prepend(tmp_path)
        for module in [name for name in sys.modules if name.partition(".")[0] == "mynets"]:
            monkeypatch.delitem(sys.modules, module)

    @pytest.mark.parametrize("name", ["mynets.models:make_net", "mynets.models:Nets.small"])
    def test_a_module_is_wrapped(self, name: str) -> None:
        net = zoo.load(name)
        assert net.name == name
        assert isinstance(net.model[2], nn.Linear)
        assert_explains_and_restores(net, noise_image(24))

    def test_a_network_is_returned_unchanged(self) -> None:
        net = zoo.load("mynets.models:named")
        assert (net.name, net.index("dog")) == ("mine", 1)
        assert_explains_and_restores(net, noise_image(24), "dog")

    def test_random_weights_are_the_same_and_random_states_are_unchanged(self) -> None:
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        first = zoo.load("mynets.models:make_net").weight_hash()
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
        torch.manual_seed(9)
        assert zoo.load("mynets.models:make_net").weight_hash() == first

    def test_names_of_families_are_not_modules(self) -> None:
        assert load_error("timm:make_net").startswith("a network must be a classifier of timm, got 'make_net'")

    def test_no_such_module(self) -> None:
        rule = (
            "a network must be 'embedded', 'torchvision:NAME', 'timm:NAME', 'voc:NAME', 'coco:NAME', 'hf:FOLDER', "
            "'hf:OWNER/NAME', 'onnx:FILE.onnx', 'file:PATH.pt2' or 'MODULE:CALLABLE'"
        )
        lists = "`extremal networks` lists the names, modules are searched on PYTHONPATH"
        for name, missing in (("no_nets:make", "no_nets"), ("mynets.other:make", "mynets.other")):
            assert load_error(name) == f"{rule}, got {name!r} and there is no module {missing!r}; {lists}"
        assert load_error("torchvison:resnet50") == (
            f"{rule}, got 'torchvison:resnet50' and there is no module 'torchvison'; {lists}; nearest: "
            "torchvision:resnet50, torchvision:resnet152, torchvision:resnet101"
        )

    def test_modules_that_cannot_be_imported(self) -> None:
        assert load_error("mynets.broken:make") == (
            "a network's module must be importable, that of 'mynets.broken:make' raised ZeroDivisionError: division by "
            "zero; correct it"
        )
        assert load_error("mynets.lacking:make") == (
            "a network's module must be importable, that of 'mynets.lacking:make' raised ModuleNotFoundError: No "
            "module named 'surely_not_installed'; correct it"
        )

    def test_no_such_callable(self) -> None:
        assert load_error("mynets.models:make_nets") == (
            "a network's module must contain the named callable, 'mynets.models:make_nets' does not exist; "
            "nearest: make_net"
        )
        assert load_error("mynets.models:Nets.big") == (
            "a network's module must contain the named callable, 'mynets.models:Nets.big' does not exist"
        )
        assert load_error("mynets.models:SIDE", kind=ExtremalTypeError) == (
            "a network must come from a callable, 'mynets.models:SIDE' is a int; name a function"
        )

    def test_callables_that_return_no_network(self) -> None:
        assert load_error("mynets.models:nothing", kind=ExtremalTypeError) == (
            "a network's callable must return an extremal.Network or a torch.nn.Module, 'mynets.models:nothing' "
            "returned a NoneType"
        )
        assert load_error("mynets.models:sized") == (
            "a network's callable must work without arguments, 'mynets.models:sized' raised TypeError: sized() "
            "missing 1 required positional argument: 'side'; correct it, or wrap it in a function that passes its "
            "arguments"
        )

    def test_weights_belong_to_the_callable(self) -> None:
        assert load_error("mynets.models:make_net", "mine.pt") == (
            "mynets.models:make_net includes its weights, got --weights 'mine.pt'; omit them"
        )
