"""Attribution methods against naive re-derivations on small networks whose every step is written out."""

import gc
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extremal import Network
from extremal.benchmark.baselines import (
    METHODS,
    Centre,
    Deconvnet,
    ExcitationBackprop,
    GradCam,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    Maps,
    MaskGradient,
    Occlusion,
    PathMap,
    PenaltyMap,
    Random,
    Rise,
    excitation,
    get_method,
)
from extremal.benchmark.baselines.gradients import relu6_as_relu
from extremal.benchmark.baselines.layer_choice import excitation_layer, grad_cam_layer
from extremal.benchmark.baselines.method import check_unique
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.solvers.path import Path
from extremal.masking.solvers.penalty import Penalty

CLASSES = 4
METHODS_FOR_ALL = [name for name in METHODS if name not in ("path", "penalty", "rise", "occlusion")]


class Residual(nn.Module):
    """h = relu(a(x)); y = relu(b(h) + h); the classes are linear in y's means. One rectifier, in place, used twice."""

    def __init__(self, rectifier: nn.Module | None = None) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.rectifier = nn.ReLU(inplace=True) if rectifier is None else rectifier
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classes = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.rectifier(self.a(x))
        y = self.b(h)
        y += h
        return self.classes(self.pool(self.rectifier(y)).flatten(1))


@pytest.fixture
def residual() -> Residual:
    torch.manual_seed(0)
    return Residual().double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 12, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def backwards(model: Residual, x: Tensor, target: int, rule: str) -> Tensor:
    """The changed gradient of one input, each step written out."""

    def rectified(slope: Tensor, before: Tensor) -> Tensor:
        if rule == "deconvnet":
            return slope.clamp_min(0)
        passed = slope * (before > 0)
        return passed.clamp_min(0) if rule == "guided" else passed

    with torch.no_grad():
        first = model.a(x)
        h = first.clamp_min(0)
        second = model.b(h) + h
        places = second[0, 0].numel()
        slope = (model.classes.weight[target] / places).view(1, -1, 1, 1).expand_as(second)
        slope = rectified(slope, second)
        slope = slope + F.conv_transpose2d(slope, model.b.weight, padding=1)
        slope = rectified(slope, first)
        return F.conv_transpose2d(slope, model.a.weight, padding=1)


@pytest.mark.parametrize(
    ("method", "rule"), [(Gradient(), "plain"), (GuidedBackprop(), "guided"), (Deconvnet(), "deconvnet")]
)
def test_rules_of_rectifiers_hold_in_a_residual_network(method, rule, residual, x):
    maps = method(Network(residual), x, [1, 3])
    expected = torch.cat([backwards(residual, x[i : i + 1], target, rule) for i, target in enumerate((1, 3))])
    torch.testing.assert_close(maps.values, expected.abs().amax(1, keepdim=True))
    assert maps.evaluations == 2


def test_three_rules_differ(residual, x):
    maps = [method(Network(residual), x, 1).values for method in (Gradient(), GuidedBackprop(), Deconvnet())]
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[1], maps[2])


def test_relu6_is_a_rectifier_below_a_ceiling(x):
    torch.manual_seed(0)
    low, high = Residual(nn.ReLU6()).double(), Residual().double()
    high.load_state_dict(low.state_dict())
    assert float(low.a(x).detach().max()) < 6
    guided = [GuidedBackprop()(Network(model), x, 1).values for model in (low, high)]
    torch.testing.assert_close(guided[0], guided[1])
    with relu6_as_relu(low, "guided-backprop") as count:
        assert count == 1
    assert isinstance(low.rectifier, nn.ReLU6)


def test_without_rectifiers_guided_backprop_is_refused(x):
    model = Residual(nn.SiLU()).double()
    with pytest.raises(ExtremalValueError) as told:
        GuidedBackprop()(Network(model), x, 1)
    assert str(told.value) == (
        "guided-backprop must find rectifiers to change (modules nn.ReLU or nn.ReLU6), this network has none; it would "
        "be the plain gradient: use gradient, or write the activations as modules"
    )


def test_integrated_gradients_of_a_linear_network_are_its_terms(x):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, CLASSES)).double()
    maps = IntegratedGradients(steps=4)(Network(model), x, [0, 2])
    terms = x * model[1].weight[[0, 2]].view(2, 3, 12, 14)
    torch.testing.assert_close(maps.values, terms.sum(1, keepdim=True).abs().detach())
    assert maps.evaluations == 2 * 4


def test_grad_cam_is_its_formula(residual, x):
    maps = GradCam("rectifier_out")(Network(Named(residual)), x, [1, 2])
    with torch.no_grad():
        h = residual.a(x).clamp_min(0)
        y = (residual.b(h) + h).clamp_min(0)
        weights = residual.classes.weight[[1, 2]] / y[0, 0].numel()
        expected = torch.einsum("nk,nkhw->nhw", weights, y).clamp_min(0)[:, None]
    torch.testing.assert_close(maps.values, expected)
    assert maps.evaluations == 2


class Named(nn.Module):
    """The residual network with its last maps as a module's output."""

    def __init__(self, model: Residual) -> None:
        super().__init__()
        self.model, self.rectifier_out = model, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.model.a(x).relu()
        y = self.rectifier_out((self.model.b(h) + h).relu())
        return self.model.classes(y.mean((2, 3)))


def excited(model: Residual, x: Tensor, target: int, sign: float = 1.0) -> Tensor:
    """The winning probabilities at h for one input: (6, H, W), loop by loop."""
    with torch.no_grad():
        h = model.a(x)[0].clamp_min(0)
        branch = model.b(h[None])[0]
        y = (branch + h).clamp_min(0)
        means = y.mean((1, 2))
        won = means * (sign * model.classes.weight[target]).clamp_min(0)
        won = won / won.sum()  # of each mean
        won = won[:, None, None] * y / y.sum((1, 2), keepdim=True)  # of each place
        parts = torch.stack([branch.clamp_min(0), h])
        shares = parts / parts.sum(0).clamp_min(1e-300)
        at_branch, at_h = won * shares[0], won * shares[1]
        weight = model.b.weight.clamp_min(0)
        padded = F.pad(h, (1, 1, 1, 1))
        back = torch.zeros_like(padded)
        for k in range(6):
            for r in range(h.shape[1]):
                for c in range(h.shape[2]):
                    given = padded[:, r : r + 3, c : c + 3] * weight[k]
                    if at_branch[k, r, c] > 0 and given.sum() > 0:
                        back[:, r : r + 3, c : c + 3] += at_branch[k, r, c] * given / given.sum()
        return at_h + back[:, 1:-1, 1:-1]


@pytest.mark.parametrize("contrastive", [False, True])
def test_excitation_backprop_is_its_formula_in_a_residual_network(contrastive, residual, x):
    network = Network(Twice(residual))
    maps = ExcitationBackprop(contrastive, layer="first")(network, x, [1, 3])
    expected = []
    for i, target in enumerate((1, 3)):
        won = excited(residual, x[i : i + 1], target)
        if contrastive:
            won = (won - excited(residual, x[i : i + 1], target, -1.0)).clamp_min(0)
        expected.append(won.sum(0, keepdim=True))
    torch.testing.assert_close(maps.values, torch.stack(expected), rtol=1e-6, atol=1e-9)
    assert maps.evaluations == (4 if contrastive else 2)
    if not contrastive:
        torch.testing.assert_close(maps.values.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))


class Twice(nn.Module):
    """The residual network with a module behind its first rectifier."""

    def __init__(self, model: Residual) -> None:
        super().__init__()
        self.model, self.first = model, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.model.rectifier(self.model.a(x)))
        y = self.model.rectifier(self.model.b(h) + h)
        return self.model.classes(self.model.pool(y).flatten(1))


def test_excitation_backprop_folds_batch_norms(x):
    torch.manual_seed(3)
    conv, norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES))
    start = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    whole = nn.Sequential(start, conv, norm, head).double().eval()
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    plain = nn.Sequential(start, folded, head).double().eval()
    maps = [ExcitationBackprop(layer="0")(Network(model), x, 2).values for model in (whole, plain)]
    torch.testing.assert_close(maps[0], maps[1])
    assert whole[2] is norm


def test_excitation_backprop_refuses_what_it_is_not_made_for(x):
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(3 * 12 * 14), nn.Linear(3 * 12 * 14, 2)).double()
    with pytest.raises(ExtremalValueError) as told:
        ExcitationBackprop()(Network(model, name="toy"), x, 1)
    assert str(told.value) == (
        "excitation backprop must have a network of linear layers and rectifiers, toy has a LayerNorm; "
        "use another method"
    )


def test_occlusion_is_the_mean_fall_of_the_squares_over_a_place(residual, x):
    method = Occlusion(side=4 * 224 / 12, step=2 * 224 / 12)
    maps = method(Network(residual), x, [1, 3])
    for i, target in enumerate((1, 3)):
        total, count = torch.zeros(12, 14, dtype=torch.float64), torch.zeros(12, 14, dtype=torch.float64)
        with torch.no_grad():
            whole = residual(x[i : i + 1])[0, target]
            for top in range(0, 12 - 4 + 1, 2):
                for left in range(0, 14 - 4 + 1, 2):
                    covered = x[i : i + 1].clone()
                    covered[..., top : top + 4, left : left + 4] = 0
                    total[top : top + 4, left : left + 4] += whole - residual(covered)[0, target]
                    count[top : top + 4, left : left + 4] += 1
        torch.testing.assert_close(
            maps.values[i, 0], (total / count).clamp_min(0), rtol=1e-4, atol=1e-6
        )  # captum's are single


def test_rise_is_its_formula_whatever_stands_beside(residual, x):
    method = Rise(masks=90, seed=5)
    network = Network(residual)
    both = method(network, torch.cat([x[:1], x[:1], x[1:]]), [1, 3, 0])
    assert both.evaluations == 2 * 90  # of the two different inputs
    masks = torch.cat(list(method.draw_masks((12, 14), x)))
    assert masks.shape == (90, 1, 12, 14)
    assert 0 <= float(masks.min()) < float(masks.max()) <= 1
    for row, (image, target) in enumerate(((0, 1), (0, 3), (1, 0))):
        total = torch.zeros(1, 12, 14, dtype=torch.float64)
        with torch.no_grad():
            for mask in masks:
                total += residual(x[image : image + 1] * mask).softmax(1)[0, target] * mask
        torch.testing.assert_close(both.values[row], total / 45)


def test_centre_points_at_the_middle_and_random_only_by_seed_and_input(x):
    network = Network(nn.Identity())
    centre = Centre()(network, x[..., :13, :13], 0).values
    assert divmod(int(centre[0].argmax()), centre.shape[3]) == (5, 6) or centre.shape[2] % 2
    noise = Random()(network, x, 0).values
    torch.testing.assert_close(noise, torch.cat([Random()(network, one[None], 0).values for one in x]))
    assert not torch.allclose(noise, Random(seed=1)(network, x, 0).values)
    assert not torch.allclose(noise[0], noise[1])


def test_excitation_lets_go_of_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule holds tensors whose gradient graph, which no collector sees through, holds the rule."""
    made: list[weakref.ref[object]] = []
    original = excitation._sum_rule

    def watched() -> object:
        rule = original()
        made.append(weakref.ref(rule))
        return rule

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            return self.last((x + x).mean((2, 3)))

    monkeypatch.setattr(excitation, "_sum_rule", watched)
    torch.manual_seed(0)
    excitation.ExcitationBackprop(layer="first")(Network(Sums()), torch.rand(1, 3, 8, 8), 0)
    gc.collect()
    assert len(made) == 2
    assert all(rule() is None for rule in made)


def test_mask_gradient_finds_the_box_that_is_looked_at():
    from support.toys import Boxes, texture

    picture = texture(1, 3, 32, 32)
    box = (slice(8, 16), slice(16, 24))
    maps = MaskGradient()(Network(Boxes(picture, [box])), picture, 0)
    inside = float(maps.values[0, 0][box].sum() / maps.values.sum())
    assert inside > 0.6
    assert maps.evaluations == 8 + 4  # the gradients, and the scores whole and destroyed, alone and side by side


@pytest.mark.parametrize(
    "method",
    [PathMap((0.1,), Path(steps=8, polish=2, search=0)), PenaltyMap((0.1,), Penalty(300, rate=0.05, weight=30))],
)
def test_extremal_maps_find_the_box_that_is_looked_at(method):
    from support.toys import Boxes, texture

    picture = texture(1, 3, 32, 32)
    box = (slice(8, 18), slice(14, 24))
    maps = method(Network(Boxes(picture, [box])), picture, 0)
    row, column = divmod(int(maps.values[0, 0].argmax()), 32)
    assert 8 <= row < 18
    assert 14 <= column < 24
    assert maps.evaluations > 10


@pytest.mark.parametrize("name", METHODS_FOR_ALL)
def test_every_method_gives_a_map_for_each_input_and_leaves_the_network_as_it_was(name):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, stride=4, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )
    network = Network(model, labels=("a", "b", "c", "d"))

    def state():
        modules = list(model.modules())
        return (
            network.weight_hash(),
            [type(m) for m in modules],
            [m.training for m in modules],
            list(model.parameters()),
        )

    before = state()
    inputs = torch.rand(3, 3, 48, 64)
    given = inputs.clone()
    generator = torch.get_rng_state()
    maps = METHODS[name](network, inputs, ["a", "d", 1])
    assert isinstance(maps, Maps)
    assert maps.values.shape == (3, 1, 48, 64)
    assert bool(torch.isfinite(maps.values).all())
    again = METHODS[name](network, inputs, ["a", "d", 1])
    assert torch.equal(maps.values, again.values)
    assert maps.evaluations == again.evaluations
    *same, parameters = state()
    assert same == list(before[:3])
    assert all(a is b for a, b in zip(parameters, before[3], strict=True))
    assert torch.equal(inputs, given)
    assert torch.equal(generator, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_layers_by_rule():
    import torchvision

    x = torch.rand(1, 3, 64, 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cases = {
            "resnet18": ("layer4", "layer3.0"),
            "vgg11": ("features.19", "features.15"),
            "mobilenet_v2": ("features", "features.7.conv.1.2"),
        }
        for name, (deep, coarse) in cases.items():
            network = Network(torchvision.models.get_model(name, weights=None), name=name)
            assert grad_cam_layer(network, x).name == deep, name
            assert excitation_layer(network, x).name == coarse, name


def test_grad_cam_of_tokens_is_of_the_last_layer_where_more_than_the_class_token_counts():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=3)
    nn.init.normal_(model.head.weight)
    network, x = Network(model), torch.rand(2, 3, 64, 64)
    spot = grad_cam_layer(network, x)
    assert (spot.name, spot.lattice, spot.tokens) == ("blocks.1", (8, 8), True)
    maps = GradCam()(network, x, [3, 5])
    held = []
    handle = model.blocks[1].register_forward_hook(lambda _, __, output: held.append(output))
    model.eval()
    top = model(x)[[0, 1], [3, 5]].sum()
    handle.remove()
    slope = torch.autograd.grad(top, held[0])[0][:, 1:]
    small = (slope.mean(1, keepdim=True) * held[0][:, 1:]).sum(2).clamp_min(0).view(2, 1, 8, 8)
    expected = F.interpolate(small, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps.values, expected.detach(), rtol=1e-3, atol=1e-5)


def test_messages(x):
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, 2)).double(), name="toy")
    cases = {
        "a method must be one of centre, random": lambda: get_method("gradcam"),
        "a method must be asked about a class index or name, got function; `explain` takes other targets": lambda: (
            Gradient()(network, x, lambda output: output[:, 0])
        ),
        "target must lie in 0..1 for toy, got 7": lambda: Gradient()(network, x, 7),
        "target must be one class, or one for each of 2 inputs, got 3": lambda: Gradient()(network, x, [0, 1, 0]),
        "Grad-CAM must find a layer of maps, toy has none that all of the answer passes through; "
        "name one with layer=...": lambda: GradCam()(network, x, 0),
        "excitation backprop must be read at a layer of a 16th of the input's sides without negative values, toy has "
        "none that all of the answer passes through; name one with layer=...": lambda: ExcitationBackprop()(
            network, x, 0
        ),
        "a layer must give maps (B, K, *S) or square tokens (B, T, K), 1 of toy gives shape (1, 2); `extremal layers` "
        "lists others": lambda: GradCam("1")(network, x, 0),
        "methods must be distinct, got path twice; leave one out": lambda: check_unique(["path", " path"]),
        "methods must name at least one, got none; e.g. grad-cam,path": lambda: check_unique([""]),
    }
    for message, call in cases.items():
        with pytest.raises((ExtremalValueError, ExtremalTypeError)) as told:
            call()
        assert str(told.value).startswith(message)
    with pytest.raises(ExtremalValueError, match="did you mean grad-cam"):
        get_method("gradcam")


def test_short_names_are_the_methods_own():
    assert all(method.name == name for name, method in METHODS.items())
    assert all(0 <= method.smooth < 1 and not math.isnan(method.smooth) for method in METHODS.values())
    assert get_method(METHODS["rise"]) is METHODS["rise"]
