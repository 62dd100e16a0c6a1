"""The networks of the app: what a glance tells, and that it may be cast while a job runs."""

import threading
from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import nn

from extremal import zoo
from extremal.app.networks import TOP, Offered, offered
from extremal.errors import ExtremalValueError
from extremal.explanations.explain import explain
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Step
from extremal.networks.inputs import prepare
from extremal.networks.network import Network
from support.app_toys import LABELS, colours, picture
from support.toys import Linear, Switchable


def test_a_glance_is_the_networks_own_softmax() -> None:
    torch.manual_seed(0)
    network = colours()
    network.model.head.weight.data = torch.randn(4, 4)  # type: ignore[union-attr]
    for colour in ("red", "green", "blue", "yellow"):
        with torch.no_grad():
            wanted = network.model(prepare(network, picture(colour)))[0].softmax(0)
        glances = Offered("toy", network).glance(picture(colour))
        assert [one.index for one in glances] == wanted.argsort(descending=True).tolist()
        assert [one.probability for one in glances] == pytest.approx(wanted.sort(descending=True).values.tolist())
        assert [one.name for one in glances] == [LABELS[one.index] for one in glances]


def test_five_classes_at_most() -> None:
    many = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 9))
    assert len(Offered("many", Network(many)).glance(picture())) == TOP == 5


def test_one_output_has_no_share() -> None:
    one = Offered("one", Network(Linear(torch.ones(48, 48)), lambda picture: torch.ones(1, 48, 48)))
    (glance,) = one.glance(picture())
    assert (glance.index, glance.name, glance.probability) == (0, "class 0", None)


def test_scores_that_are_not_finite() -> None:
    one = Offered("toy", colours())
    one.network.model.head.bias.data.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(ExtremalValueError) as caught:
        one.glance(picture())
    assert str(caught.value) == "a network must return finite scores, toy did not; check its weights"


def test_two_looks_share_the_memory_of_the_weights() -> None:
    one = Offered("toy", Network(Switchable()))
    mine, theirs = (dict(net.model.state_dict(keep_vars=True)) for net in (one.network, one.glancing))
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    assert one.network.model is not one.glancing.model
    assert not set(one.network.model.modules()) & set(one.glancing.model.modules())
    assert not any(model.training for model in (one.network.model, one.glancing.model))


def test_layers_are_those_where_it_can_be_split() -> None:
    assert Offered("toy", colours()).layers == ("features", "act", "head")


def test_a_glance_while_a_job_runs_is_the_same() -> None:
    """Another thread looks at each step of the job, when the job's own network is folded and frozen."""
    network = Network(Switchable(), colours().preprocess, LABELS, "switchable")
    one = Offered("switchable", network)
    before, seen = one.glance(picture("green")), list[object]()

    def look(_: Step) -> None:
        thread = threading.Thread(target=lambda: seen.append(one.glance(picture("green"))))
        thread.start()
        thread.join(10)

    short = PathSolver(steps=6, polish=2, draws=2, search=2)
    with_looks = explain(network, picture(), 0, areas=(0.2,), solver=short, on_step=look)
    assert len(seen) > 5
    assert all(one == before for one in seen)
    alone = explain(network, picture(), 0, areas=(0.2,), solver=short)
    assert torch.equal(with_looks.masks, alone.masks)


class TestOffered:
    @pytest.fixture(autouse=True)
    def toys(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
        asked = list[tuple[str, object]]()

        def load(name: str, weights: object = None) -> Network:
            asked.append((name, weights))
            return colours()

        monkeypatch.setattr(zoo, "load", load)
        return asked

    def test_by_name_each_with_its_weights(self, toys: list[tuple[str, object]]) -> None:
        found = offered(["embedded", "timm:resnet18=random", "voc:vgg16=a=b.safetensors"])
        assert list(found) == ["embedded", "timm:resnet18=random", "voc:vgg16=a=b.safetensors"]
        assert [one.name for one in found.values()] == list(found)
        assert toys == [("embedded", None), ("timm:resnet18", "random"), ("voc:vgg16", "a=b.safetensors")]

    def test_nothing_is_the_embedded_one(self, toys: list[tuple[str, object]]) -> None:
        assert list(offered([])) == ["embedded"]
        assert toys == [("embedded", None)]

    def test_twice_the_same(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            offered(["a", "b", "a"])
        assert str(caught.value) == "networks must be different ones, got 'a' twice; leave one of them out"


class TestUnfit:
    @staticmethod
    def told(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Network]) -> str:
        monkeypatch.setattr(zoo, "load", lambda name, weights=None: make())
        with pytest.raises(ExtremalValueError) as caught:
            offered(["toy"])
        return str(caught.value)

    def test_a_broken_network_is_told_at_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> Network:
            network = colours()
            network.model.head.bias.data.fill_(torch.inf)  # type: ignore[union-attr]
            return network

        told = self.told(monkeypatch, broken)
        assert told == "a network must return finite scores, toy did not; check its weights"

    def test_a_network_without_classes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = self.told(monkeypatch, lambda: Network(nn.Flatten(0)))
        assert told == ("a network must return (B, classes), toy returned shape (196608,); wrap it, e.g. to [:, None]")

    def test_an_unknown_name(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            offered(["embeded"])
        assert str(caught.value).startswith("a network must be 'embedded', 'torchvision:NAME', 'timm:NAME'")
        assert "got 'embeded'" in str(caught.value)


def test_random_weights_are_the_same_each_time() -> None:
    one, other = (offered(["torchvision:squeezenet1_1=random"]) for _ in range(2))
    grey = Image.new("RGB", (64, 64), "grey")
    (mine,), (theirs,) = ([net.glance(grey) for net in found.values()] for found in (one, other))
    assert mine == theirs
    assert [glance.name for glance in mine] != []
