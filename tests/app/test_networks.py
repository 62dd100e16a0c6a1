"""Networks of the app: top classes, also while a job is running, and loading by name."""

import threading
from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import zoo
from extremal.app.networks import N_TOP_CLASSES, ServedNetwork, load_networks
from extremal.explanations.explain import explain
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Step
from extremal.networks.inputs import prepare
from extremal.networks.network import Network
from support.app_toys import LABELS, colour_image, colour_network
from support.errors import message_of
from support.toys import Linear, Switchable


def test_probabilities_are_the_softmax_of_the_scores() -> None:
    torch.manual_seed(0)
    network = colour_network()
    network.model.head.weight.data = torch.randn(4, 4)  # type: ignore[union-attr]
    for colour in ("red", "green", "blue", "yellow"):
        with torch.no_grad():
            expected = network.model(prepare(network, colour_image(colour)))[0].softmax(0)
        classes = ServedNetwork("toy", network).top_classes(colour_image(colour))
        assert [item.index for item in classes] == expected.argsort(descending=True).tolist()
        assert [item.probability for item in classes] == pytest.approx(expected.sort(descending=True).values.tolist())
        assert [item.label for item in classes] == [LABELS[item.index] for item in classes]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (nn.Softmax(1), [0.6, 0.3, 0.1]),  # probabilities are shown as they are
        (nn.Identity(), [0.6, 0.3, 0.1]),  # a softmax of logits
    ],
)
def test_probabilities_of_other_outputs(last: nn.Module, expected: list[float]) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.1, 0.6, 0.3]).log() + 0 * x.mean((1, 2, 3))[:, None]

    served = ServedNetwork("toy", Network(nn.Sequential(Fixed(), last)))
    assert [item.probability for item in served.top_classes(colour_image())] == pytest.approx(expected)


def test_probabilities_of_independent_labels() -> None:
    class Labels(nn.Module):
        """Light in the input shows two labels; none without."""

        def forward(self, x: Tensor) -> Tensor:
            bright = (x.amax((1, 2, 3)) != x.amin((1, 2, 3)))[:, None]
            return torch.where(bright, torch.tensor([3.0, 2.0, -6.0]), torch.full((3,), -6.0))

    served = ServedNetwork("labels", Network(Labels(), lambda image: torch.rand(3, 48, 48)))
    shown = [item.probability for item in served.top_classes(colour_image())]
    assert shown == pytest.approx(torch.tensor([3.0, 2.0, -6.0]).sigmoid().tolist())


def test_at_most_five_classes() -> None:
    many = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 9))
    assert len(ServedNetwork("many", Network(many)).top_classes(colour_image())) == N_TOP_CLASSES == 5


def test_a_single_output_has_no_probability() -> None:
    served = ServedNetwork("one", Network(Linear(torch.ones(48, 48)), lambda image: torch.ones(1, 48, 48)))
    (item,) = served.top_classes(colour_image())
    assert (item.index, item.label, item.probability) == (0, "class 0", None)


def test_scores_that_are_not_finite() -> None:
    served = ServedNetwork("toy", colour_network())
    served.network.model.head.bias.data.fill_(torch.nan)  # type: ignore[union-attr]
    assert (
        message_of(served.top_classes, colour_image())
        == "a network must return finite scores, toy did not; check its weights"
    )


def test_both_networks_share_their_weights() -> None:
    served = ServedNetwork("toy", Network(Switchable()))
    networks = served.network, served.preview_network
    mine, theirs = (dict(net.model.state_dict(keep_vars=True)) for net in networks)
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    assert served.network.model is not served.preview_network.model
    assert not set(served.network.model.modules()) & set(served.preview_network.model.modules())
    assert not any(net.model.training for net in networks)


def test_layers_are_those_where_it_can_be_split() -> None:
    assert ServedNetwork("toy", colour_network()).layers.keys() == {"features", "act", "head"}


def test_top_classes_are_the_same_while_a_job_is_running() -> None:
    """Another thread classifies at each step of the job, while the network of the job is frozen and accelerated."""
    network = Network(Switchable(), colour_network().preprocess, LABELS, "switchable")
    served = ServedNetwork("switchable", network)
    before, during = served.top_classes(colour_image("green")), list[object]()

    def classify(_: Step) -> None:
        thread = threading.Thread(target=lambda: during.append(served.top_classes(colour_image("green"))))
        thread.start()
        thread.join(10)

    short = PathSolver(steps=6, polish=2, draws=2, search=2)
    observed = explain(network, colour_image(), 0, areas=(0.2,), solver=short, on_step=classify)
    assert len(during) > 5
    assert all(classes == before for classes in during)
    alone = explain(network, colour_image(), 0, areas=(0.2,), solver=short)
    assert torch.equal(observed.masks, alone.masks)


class TestLoadNetworks:
    @pytest.fixture(autouse=True)
    def toys(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
        calls = list[tuple[str, object]]()

        def load(name: str, weights: object = None, *_: object) -> Network:
            calls.append((name, weights))
            return colour_network()

        monkeypatch.setattr(zoo, "load", load)
        return calls

    def test_by_name_each_with_its_weights(self, toys: list[tuple[str, object]]) -> None:
        networks = load_networks(["embedded", "timm:resnet18=random", "voc:vgg16=a=b.safetensors"])
        assert list(networks) == ["embedded", "timm:resnet18=random", "voc:vgg16=a=b.safetensors"]
        assert [served.name for served in networks.values()] == list(networks)
        assert toys == [("embedded", None), ("timm:resnet18", "random"), ("voc:vgg16", "a=b.safetensors")]

    def test_the_default_is_the_embedded_network(self, toys: list[tuple[str, object]]) -> None:
        assert list(load_networks([])) == ["embedded"]
        assert toys == [("embedded", None)]

    def test_duplicates(self) -> None:
        assert message_of(load_networks, ["a", "b", "a"]) == (
            "networks must be distinct, got 'a' twice; leave one of them out"
        )


class TestUnusable:
    @staticmethod
    def message(monkeypatch: pytest.MonkeyPatch, build: Callable[[], Network]) -> str:
        monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: build())
        return message_of(load_networks, ["toy"])

    def test_a_broken_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> Network:
            network = colour_network()
            network.model.head.bias.data.fill_(torch.inf)  # type: ignore[union-attr]
            return network

        assert (
            self.message(monkeypatch, broken) == "a network must return finite scores, toy did not; check its weights"
        )

    def test_a_network_without_classes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.message(monkeypatch, lambda: Network(nn.Flatten(0))) == (
            "a network must return (B, classes), toy returned shape (196608,); wrap it, e.g. to [:, None]"
        )

    def test_an_unknown_name(self) -> None:
        message = message_of(load_networks, ["embeded"])
        assert message.startswith("a network must be 'embedded', 'torchvision:NAME', 'timm:NAME'")
        assert "got 'embeded'" in message


def test_random_weights_are_the_same_each_time() -> None:
    first, second = (load_networks(["torchvision:squeezenet1_1=random"]) for _ in range(2))
    grey = Image.new("RGB", (64, 64), "grey")
    (a,), (b,) = ([served.top_classes(grey) for served in networks.values()] for networks in (first, second))
    assert a == b
    assert [item.label for item in a] != []
