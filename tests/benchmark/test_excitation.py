"""Excitation backprop against its formula on a residual network, loop by loop."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extremal import Network
from extremal.benchmark.baselines import ExcitationBackprop, excitation
from support.errors import message_of
from support.residual import CLASSES, Residual, ResidualWithProbe


def naive_probabilities(model: Residual, x: Tensor, target: int, sign: float = 1.0) -> Tensor:
    """Compute the winning probabilities at h for one input: (6, H, W), loop by loop."""
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
                    contributions = padded[:, r : r + 3, c : c + 3] * weight[k]
                    if at_branch[k, r, c] > 0 and contributions.sum() > 0:
                        back[:, r : r + 3, c : c + 3] += at_branch[k, r, c] * contributions / contributions.sum()
        return at_h + back[:, 1:-1, 1:-1]


@pytest.mark.parametrize("contrastive", [False, True])
def test_excitation_backprop_equals_its_formula_in_a_residual_network(contrastive, residual, x):
    network = Network(ResidualWithProbe(residual))
    maps = ExcitationBackprop(contrastive, layer="first")(network, x, [1, 3])
    expected = []
    for i, target in enumerate((1, 3)):
        won = naive_probabilities(residual, x[i : i + 1], target)
        if contrastive:
            won = (won - naive_probabilities(residual, x[i : i + 1], target, -1.0)).clamp_min(0)
        expected.append(won.sum(0, keepdim=True))
    torch.testing.assert_close(maps.values, torch.stack(expected), rtol=1e-6, atol=1e-9)
    assert maps.evaluations == (4 if contrastive else 2)
    if not contrastive:
        torch.testing.assert_close(maps.values.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))


def test_excitation_backprop_folds_batch_norms(x):
    torch.manual_seed(3)
    conv, norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES))
    start = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    full = nn.Sequential(start, conv, norm, head).double().eval()
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    plain = nn.Sequential(start, folded, head).double().eval()
    maps = [ExcitationBackprop(layer="0")(Network(model), x, 2).values for model in (full, plain)]
    torch.testing.assert_close(maps[0], maps[1])
    assert full[2] is norm


def test_excitation_backprop_refuses_layer_norms(x):
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(3 * 12 * 14), nn.Linear(3 * 12 * 14, 2)).double()
    assert message_of(ExcitationBackprop(), Network(model, name="toy"), x, 1) == (
        "excitation backprop must have a network of linear layers and rectifiers, toy has a LayerNorm; "
        "use another method"
    )


def test_excitation_releases_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule and the gradient graph of its tensors refer to each other, which no garbage collector detects."""
    created: list[weakref.ref[object]] = []
    original = excitation._sum_rule

    def watched() -> object:
        rule = original()
        created.append(weakref.ref(rule))
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
    assert len(created) == 2
    assert all(rule() is None for rule in created)
