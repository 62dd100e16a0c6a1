"""Splitting a network at a layer: the same outputs, the part before it runs once, and what cannot be split."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import extremal
from extremal import ExtremalValueError, Network
from extremal.networks.acceleration import Acceleration
from extremal.networks.layers import layers
from extremal.networks.split import split

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """A trunk with an in-place sum, a skip connection, and an activation that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 8, 3, padding=1)
        self.two = Two()
        self.idle = nn.Linear(2, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        x = self.act(self.norm(self.stem(x)))
        y = self.inner(x)
        y += x
        y = self.act(self.outer(y))
        y, _ = self.two(y)
        return self.head(y.mean((2, 3)).reshape(count, -1))


class Two(nn.Module):
    """Returns a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x * 2, 1


def seeded(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


def compare_outputs(network: Network, name: str, x: Tensor = X) -> tuple[Tensor, Tensor, Any]:
    """Return the whole network's output, that of the split network for three copies of each input, and the split."""
    with network.frozen() as run:
        run.accelerate(x, (name,))
        part = split(run, name, x)
        of = torch.arange(len(x)).repeat(3)
        with torch.no_grad():
            return run(x).repeat(3, 1), part(part.activations[of], of), part


@pytest.mark.parametrize("accelerate", ["portable", "onednn", "off"])
@pytest.mark.parametrize("name", ["stem", "norm", "inner", "outer"])
def test_a_split_gives_the_output_of_the_whole_network(name: str, accelerate: Acceleration) -> None:
    expected_output, parts, part = compare_outputs(Network(seeded(Residual()), accelerate=accelerate), name)
    torch.testing.assert_close(parts, expected_output, rtol=0, atol=1e-5)
    assert part.layer.bypassed == (name == "inner")
    assert part.forwards == 3 * len(X)


@pytest.mark.parametrize("name", ["stem", "norm"])
def test_activations_are_the_modules_own_although_norms_are_folded(name: str) -> None:
    model = seeded(Residual())
    with torch.no_grad():
        wanted = model.stem(X) if name == "stem" else model.norm(model.stem(X))  # type: ignore[operator]
    torch.testing.assert_close(compare_outputs(Network(model), name)[2].activations, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (torchvision.models.resnet18, "layer2"),
        (torchvision.models.resnet18, "layer2.0.conv2"),
        (torchvision.models.mobilenet_v3_small, "features.4"),
        (torchvision.models.densenet121, "features.denseblock2"),
        (torchvision.models.shufflenet_v2_x0_5, "stage3.1"),
        (torchvision.models.vgg11, "features.10"),
    ],
)
def test_common_networks_split_exactly(build: Any, name: str) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    expected_output, parts, _ = compare_outputs(Network(build(weights=None, num_classes=5).eval()), name, x)
    torch.testing.assert_close(parts, expected_output, rtol=1e-5, atol=1e-5 * float(expected_output.abs().max()))


@pytest.mark.parametrize("name", ["blocks.1", "blocks.1.mlp.fc1", "norm", "patch_embed"])
def test_transformers_split_exactly(name: str) -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=3, img_size=64).eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    expected_output, parts, part = compare_outputs(Network(model), name, x)
    torch.testing.assert_close(parts, expected_output, rtol=1e-5, atol=1e-5)
    assert part.activations.shape[:2] == ((2, 17) if name != "patch_embed" else (2, 16))
    assert part.layer.bypassed == (name in ("blocks.1.mlp.fc1",))


def test_the_part_before_runs_once_and_the_part_after_each_time() -> None:
    model = seeded(nn.Sequential(OrderedDict(a=nn.Conv2d(3, 4, 3), b=nn.ReLU(), c=nn.Flatten(), d=nn.Linear(3600, 2))))
    calls = {"a": 0, "d": 0}
    originals = {name: getattr(model, name).forward for name in calls}

    def counted(name: str) -> Any:
        def forward(x: Tensor) -> Tensor:
            calls[name] += len(x)
            return originals[name](x)

        return forward

    for name in calls:
        getattr(model, name).forward = counted(name)
    with Network(model).frozen() as run:
        part = split(run, "b", X)
        before = dict(calls)
        for _ in range(5):
            part(part.activations[:1], torch.zeros(1, dtype=torch.int64))
    assert (calls["a"] - before["a"], calls["d"] - before["d"]) == (0, 5)
    assert [getattr(model, name).forward.__name__ for name in calls] == ["forward"] * 2


def test_gradients_pass_to_the_activations() -> None:
    with Network(seeded(Residual())).frozen() as run:
        part = split(run, "outer", X)
        leaf = part.activations.clone().requires_grad_()
        (result,) = torch.autograd.grad(part(leaf * 1.0, torch.arange(2))[:, 0].sum(), leaf)
    model, stored = seeded(Residual()), []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output.retain_grad()
        stored.append(output)
        return output.clone()

    model.outer.register_forward_hook(keep)  # type: ignore[union-attr]
    model(X)[:, 0].sum().backward()
    torch.testing.assert_close(result, stored[0].grad, rtol=1e-4, atol=1e-6)
    assert part.gradients == 2


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_restored(broken: bool) -> None:
    model = seeded(Residual())
    own = {name: dict(module.__dict__) for name, module in model.named_modules()}

    def fail(_: object) -> object:
        raise KeyboardInterrupt

    with Network(model).frozen() as run:
        part = split(run, "inner", X)
        if broken:
            model.head.forward = fail  # type: ignore[assignment, union-attr]
            with pytest.raises(KeyboardInterrupt):
                part(part.activations, torch.arange(2))
            del model.head.forward  # type: ignore[union-attr]
    for name, module in model.named_modules():
        assert set(module.__dict__) == set(own[name])
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def split_error(name: str, model: nn.Module | None = None) -> str:
    with Network(model or seeded(Residual()), name="net").frozen() as run, pytest.raises(ExtremalValueError) as error:
        split(run, name, X)
    return str(error.value)


RULE = (
    "a network is split at a module that is called once and gives one tensor (B, K, ...) on which the output depends; "
)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("act", "it is called 2 times in a pass"),
        ("idle", "it is called 0 times in a pass"),
        ("two", "its output is a tuple"),
    ],
)
def test_unsuitable_modules_raise_an_error(name: str, problem: str) -> None:
    expected = (
        f"{RULE}{name!r} is not suitable: {problem}; extremal.layers(network) or `extremal layers` lists those that are"
    )
    assert split_error(name) == expected


class UnusedLayer(nn.Module):
    """Computes a value that the output does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.used(x).mean((2, 3))


def test_a_layer_without_effect_raises_an_error() -> None:
    assert "'unused' is not suitable: the output does not depend on it" in split_error("unused", UnusedLayer())


def test_an_unknown_layer_raises_an_error_with_suggestions() -> None:
    assert split_error("iner") == (
        "a layer must be the name of a module in net, got 'iner'; did you mean inner, norm, idle? "
        "extremal.layers(network) or `extremal layers` lists them"
    )
    assert split_error("") == (
        "a layer must be the name of a module in net, got ''; extremal.layers(network) or `extremal layers` lists them"
    )


class HiddenState(nn.Module):
    """Uses, after the layer, a number that is not the output of a module before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(F.relu(self.layer(self.first(x))).mean((2, 3))) + self.calls


def test_a_network_with_another_output_when_split_raises_an_error() -> None:
    assert split_error("layer", HiddenState()) == (
        "a network split at a layer must give the same output as before, net split at 'layer' does not; "
        "code after the layer uses more than the outputs of the modules before it: choose another layer"
    )


def test_layers_list_where_a_network_can_be_split() -> None:
    result = {layer.name: layer for layer in layers(seeded(Residual()), X)}
    assert [name for name, layer in result.items() if layer.can_split_cleanly] == ["stem", "norm", "outer", "head"]
    assert result["inner"].bypassed
    assert result["act"].problem == "it is called 2 times in a pass"
    assert result["two"].problem == "its output is a tuple"
    assert result["outer"] == extremal.Layer("outer", "Conv2d", (8, 32, 32))
    assert "idle" not in result


def test_layers_of_the_embedded_network_need_no_input() -> None:
    result = {layer.name: layer for layer in extremal.layers("embedded")}
    assert result["blocks.5"] == extremal.Layer("blocks.5", "Sequential", (192, 7, 7))
    assert result["blocks.4.1.conv_pw"].bypassed


@pytest.mark.parametrize("name", ["norm", "inner"])  # before a rectifier in place, and before a sum in place
@pytest.mark.parametrize("accelerate", ["off", "portable"])
def test_code_after_the_layer_may_change_its_output_in_place(name: str, accelerate: Acceleration) -> None:
    network = Network(seeded(Residual()), accelerate=accelerate)
    with network.frozen() as run, torch.no_grad():
        run.accelerate(X, (name,))
        part = split(run, name, X)
        before, index = part.activations.clone(), torch.arange(len(X))
        scores = [part(part.activations, index) for _ in range(2)]
        assert torch.equal(part.activations, before)
        assert torch.equal(*scores)


def test_scores_of_sets_are_those_of_the_network_with_the_other_channels_at_zero() -> None:
    model = seeded(torchvision.models.resnet18()).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layer, target = "layer4.1.bn2", 3
    result = extremal.explain_channels(model, x, layer, target, counts=(26, 205), score="logit")
    for column, count in enumerate(result.counts):
        mask = result.binary(count).view(1, -1, 1, 1)
        handle = model.get_submodule(layer).register_forward_hook(lambda *call, m=mask: call[2] * m)
        with torch.no_grad():
            expected = float(model(x)[0, target])
        handle.remove()
        span = abs(float(result.score_full - result.score_blank))
        assert float(result.binary_scores[0, column]) == pytest.approx(expected, abs=1e-3 * span)


class Encoder(nn.Module):
    """A layer of a transformer, which torch computes in one call where nothing looks inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.block(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(tokens.mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["block.linear1", "block.norm1"])
def test_layers_inside_of_a_fused_transformer_layer(name: str) -> None:
    model = seeded(Encoder())
    result = extremal.explain_channels(model, X[:1], name, 0, counts=(3,), score="logit")
    mask = result.binary(3).view(1, 1, -1)
    handle = model.get_submodule(name).register_forward_hook(lambda *call: call[2] * mask)
    with torch.no_grad():
        expected = float(model(X[:1])[0, 0])
    handle.remove()
    assert float(result.binary_scores) == pytest.approx(expected, abs=1e-4)
    assert not model.get_submodule(name)._forward_hooks
