"""`examine`: the fault of each toy is found and no other; healthy networks have none."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from extremal import Network
from extremal.explanations.preflight.doctor import CHECK_NAMES, Finding, Level, examine
from extremal.explanations.preflight.network_checks import check_devices
from support.errors import message_of
from support.faulty import BOX, SIDE, Faulty, X
from support.toys import Boxes, Switchable

LOOK = "look for noise, and for dropout that ignores eval(), e.g. F.dropout without training=self.training"
OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
AFTER_FINITE, AFTER_DETERMINISTIC, AFTER_DEPENDS = (
    CHECK_NAMES[1 + CHECK_NAMES.index(name) :] for name in ("finite outputs", "deterministic", "depends on the input")
)


def scores(first: Tensor) -> Tensor:
    """(B,) -> (B, 2), the second zero."""
    return torch.stack([first, torch.zeros_like(first)], 1)


def mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def without_values() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(1728, 2, device="meta"))


def with_nan() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1728, 2), nn.BatchNorm1d(2)).eval()
    model[1].weight.data[0, :3] = torch.nan
    model[1].bias.data[1] = torch.inf
    model[2].running_mean[0] = torch.nan
    return model


def in_place(x: Tensor) -> Tensor:
    x[..., 0] += 1
    return x


def overwritten(x: Tensor) -> Tensor:
    """exp(x), changed after its gradient was recorded."""
    x = x.exp()
    x += 1
    return x - 2


FAULTS: dict[str, tuple[nn.Module, Tensor, dict[str, object], Finding, tuple[str, ...]]] = {
    "no values": (
        *(without_values(), X, {}),
        Finding(
            *("devices", PROBLEM, "2 of 2 weights have no values (device meta), the first is '1.weight'"),
            "load the weights",
        ),
        CHECK_NAMES[1:],
    ),
    "weights that are not finite": (
        *(with_nan(), X, {}),
        Finding(
            *("weights", PROBLEM, "NaN or infinite weights: 3 of '1.weight', 1 of '1.bias', 1 of '2.running_mean'"),
            "load the weights again",
        ),
        CHECK_NAMES[2:],
    ),
    "an image that is not scaled": (
        *(Faulty(lambda x: x / 127.5 - 1), (X + 1) * 127.5, {}),
        Finding(
            *("input range", WARNING, "values lie from 0 to 255, like those of an image that is not scaled"),
            "divide by 255 and normalise as in training",
        ),
        (),
    ),
    "values far from zero": (
        *(Faulty(lambda x: x / 30), X * 30, {}),
        Finding("input range", WARNING, "values lie from -30 to 30, far from 0", "normalise as in training"),
        (),
    ),
    "a shape that it does not accept": (
        *(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), X, {}),
        Finding(
            *("evaluation", PROBLEM),
            "an input of 3 × 24 × 24 fails: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x1728 and 5x2)",
            "pass an input of the shape and type that the network accepts",
        ),
        CHECK_NAMES[CHECK_NAMES.index("input unchanged") :],
    ),
    "an input that is changed": (
        *(Faulty(in_place), X, {}),
        Finding(
            *("input unchanged", WARNING),
            "the network changes its input in place, so that explain copies it for each call",
            "start its forward with x = x.clone(), or remove inplace=True",
        ),
        (),
    ),
    "dropout in training mode": (
        *(nn.Sequential(Boxes(X, [BOX]), nn.Dropout(0.5)), X, {}),
        Finding(
            *("evaluation mode", WARNING),
            "3 of 3 modules are in training mode, among them 1 (Dropout); outputs differ by 4.82 from evaluation mode",
            "call eval() on it before your own calls, or they differ from what is explained",
        ),
        (),
    ),
    "batch norm in training mode": (
        *(nn.Sequential(Boxes(X, [BOX]), nn.BatchNorm1d(2)), X, {}),
        Finding(
            *("evaluation mode", WARNING),
            "3 of 3 modules are in training mode, among them 1 (BatchNorm1d), in which it fails: ValueError: Expected "
            "more than 1 value per channel when training, got input size torch.Size([1, 2])",
            "call eval() on it before your own calls, or they differ from what is explained",
        ),
        (),
    ),
    "an output that is not finite": (
        *(Faulty(after=lambda out, x: out + torch.log(-x.abs().amax((1, 2, 3)))[:, None]), X, {}),
        Finding(
            *("finite outputs", PROBLEM),
            "outputs are NaN or infinite: 2 for the whole input, 2 for the input destroyed by blur, 2 for the input "
            "destroyed by fade, 2 for the input destroyed by noise",
            "check the weights and the range of the input",
        ),
        AFTER_FINITE,
    ),
    "not finite if faded, which is requested": (
        *(Faulty(after=lambda out, x: out + 0 / x.abs().amax((1, 2, 3))[:, None]), X, {"perturbation": "fade"}),
        Finding(
            *("finite outputs", PROBLEM, "outputs are NaN or infinite: 2 for the input destroyed by fade"),
            "keep roots, logarithms and divisions in the network away from zero",
        ),
        AFTER_FINITE,
    ),
    "not finite if faded": (
        *(Faulty(after=lambda out, x: out + 0 / x.abs().amax((1, 2, 3))[:, None]), X, {}),
        Finding(
            *("finite outputs", WARNING, "outputs are NaN or infinite: 2 for the input destroyed by fade"),
            "keep roots, logarithms and divisions in the network away from zero",
        ),
        (),
    ),
    "dropout that is always on": (
        *(Faulty(after=lambda out, x: F.dropout(out, 0.5)), X, {"seed": 3}),
        Finding("deterministic", PROBLEM, "outputs of the same input differ by 9.64, the largest is 9.64", LOOK),
        AFTER_DETERMINISTIC,
    ),
    "a mean over the batch": (
        *(Faulty(after=lambda out, x: out + out.mean(0)), X, {}),
        Finding(
            *("rows independent", PROBLEM, "the output of an input differs by 5.01 in a batch with others"),
            "look for statistics over the batch axis, e.g. batch norm without running ones",
        ),
        (),
    ),
    "a batch size that is fixed": (
        *(Faulty(lambda x: x.reshape(1, 3, SIDE, SIDE)), X, {}),
        Finding(
            *("rows independent", WARNING),
            "a batch of 3 fails: RuntimeError: shape '[1, 3, 24, 24]' is invalid for input of size 5184; rows are "
            "evaluated one at a time",
            "let it accept batches of any size, which is faster",
        ),
        (),
    ),
    "a constant": (
        *(Faulty(after=lambda out, x: 0 * out + torch.tensor([3.0, 0.0])), X, {}),
        Finding(
            *("depends on the input", PROBLEM, "the input, noise, zeros and ones all score 3"),
            "look for weights of zero or a constant output",
        ),
        AFTER_DEPENDS,
    ),
    "a class that is a constant": (
        *(Faulty(), X, {"target": 1, "score": "logit"}),
        Finding(
            *("depends on the input", PROBLEM, "the input, noise, zeros and ones all score 0"),
            "look for weights of zero or a constant output",
        ),
        AFTER_DEPENDS,
    ),
    "softmax at its end": (
        *(nn.Sequential(Faulty(), nn.Softmax(1)), X, {}),
        Finding(
            *("raw outputs", WARNING, "outputs are probabilities: none is negative, and they sum to 1"),
            "remove the softmax at the end of the network: scores are computed from logits",
        ),
        (),
    ),
    "no gradient": (
        *(Faulty(lambda x: x.detach()), X, {}),
        Finding(
            *("gradient", PROBLEM, "the score has no gradient with respect to the input"),
            "look for no_grad, detach, rounding or argmax inside the network",
        ),
        (),
    ),
    "a gradient that is zero": (
        *(Faulty(after=lambda out, x: out.round()), X, {}),
        Finding(
            *("gradient", PROBLEM, "gradients at constant masks sum to at most 0"),
            "look for steps or saturated functions inside the network, or choose another score",
        ),
        (),
    ),
    "a gradient that is not finite": (
        *(Faulty(after=lambda out, x: out + (0 * mean(x)).sqrt()[:, None]), X, {}),
        Finding(
            *("gradient", PROBLEM, "2304 of 2304 gradients at constant masks are NaN or infinite"),
            "look for roots, norms or logarithms of zero inside the network",
        ),
        (),
    ),
    "mean colour, destroyed by blur": (
        *(Faulty(after=lambda out, x: scores(5 * mean(x))), X / 4 + 1, {"perturbation": "blur"}),
        Finding(
            *(
                "destruction lowers score",
                PROBLEM,
                "the whole input scores 5.026; destroyed by blur 5.02, fade 0, noise 5.041",
            ),
            "choose the perturbation fade, which lowers it by 5.03",
        ),
        (),
    ),
    "a class that only the destroyed input has": (
        *(Faulty(after=lambda out, x: scores(-5 * mean(x))), X / 4 + 1, {"target": 0}),
        Finding(
            *(
                "destruction lowers score",
                PROBLEM,
                "the whole input scores -5.026; destroyed by blur -5.02, fade 0, noise -5.041",
            ),
            "no perturbation lowers it: choose a class that the network sees, or another score",
        ),
        (),
    ),
    "a probability at its end": (
        *(Faulty(gain=12.0), X, {"score": "probability"}),
        Finding(
            *("saturation", PROBLEM),
            "the probability of class 0 is 0.9999906, at which probability has 9.4e-06 of the margin's gradient",
            "choose the score margin or logit",
        ),
        (),
    ),
    "two classes alike": (
        *(Faulty(gain=0.3), X, {}),
        Finding(
            *("clear class", WARNING, "class 0 has 57.2 %, then class 1 42.8 %"),
            "name the class that is meant, or a group of them such as 'tabby|tiger cat', or explain each of them",
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", [*FAULTS])
def test_the_fault_is_found_and_no_other(name: str) -> None:
    model, x, options, finding, skipped = FAULTS[name]
    before = x.clone()
    findings = examine(model, x, **options)  # type: ignore[arg-type]
    issues = [issue for issue in findings.issues if issue.name != "answer given" or "only the destroyed" not in name]
    assert issues == [finding]
    assert findings.skipped == skipped
    assert findings.ok == (finding.level is WARNING)
    assert [one.name for one in findings.findings] + [*skipped] == [*CHECK_NAMES]
    assert torch.equal(x, before)


def test_several_devices() -> None:
    model = nn.Linear(2, 2)
    with FakeTensorMode():
        model.register_buffer("elsewhere", torch.zeros(2, device="cuda:0"))
    assert check_devices(Network(model)) == Finding(
        "devices", PROBLEM, "the weights are on cpu, cuda:0", "move it: .to('cuda:0')"
    )


def test_a_gradient_that_cannot_be_computed() -> None:
    (finding,) = examine(Faulty(overwritten), X).issues
    measured = (
        "the gradient cannot be computed: RuntimeError: one of the variables needed for gradient computation has been"
    )
    assert (finding.name, finding.level) == ("gradient", PROBLEM)
    assert finding.measured.startswith(measured)
    assert finding.remedy == "look for operations that change tensors in place, like x += 1 or relu(inplace=True)"


@pytest.mark.parametrize(
    ("x", "measured", "remedy"),
    [
        (X / 2 + 0.5, "values lie from 0 to 1, normalised images from -2 to 2", "normalise as in training"),
        (X * 3, "values lie from -3 to 3, normalised images from -2 to 2", "normalise once, as in training"),
        (X * 2.3, "values lie from -2.3 to 2.3, normalised images from -2 to 2", ""),
        (X * 2, "values lie from -2 to 2, normalised images from -2 to 2", ""),
    ],
)
def test_the_range_of_normalised_images(x: Tensor, measured: str, remedy: str) -> None:
    net = Network(Faulty(), mean=[0.5] * 3, std=[0.25] * 3)
    findings = examine(net, x)
    level = WARNING if remedy else OK
    assert next(one for one in findings.findings if one.name == "input range") == Finding(
        "input range", level, measured, remedy
    )


@pytest.mark.parametrize("score", ["margin", "logit", "probability"])
@pytest.mark.parametrize("perturbation", ["blur", "fade", "noise", "constant"])
def test_a_healthy_toy_has_no_issues(score: str, perturbation: str) -> None:
    findings = examine(Faulty(), X, score=score, perturbation=perturbation)
    assert (findings.issues, findings.skipped, findings.ok, findings.target) == ((), (), True, "class 0")
    assert next(one for one in findings.findings if one.name == "evaluation mode").measured == (
        "2 of 2 modules are in training mode, which changes nothing"
    )


def test_buffers_may_be_infinite() -> None:
    model = Faulty()
    model.register_buffer("hidden", torch.full((2, 2), -torch.inf))
    assert examine(model, X).issues == ()


def test_the_real_network_has_no_issues() -> None:
    findings = examine("embedded", data.coffee())
    assert (findings.issues, findings.skipped, findings.target, findings.network) == ((), (), "espresso", "embedded")


def test_a_class_that_is_named_need_not_be_clear() -> None:
    findings = examine(Faulty(gain=0.3), X, 0)
    assert findings.findings[-1] == Finding("clear class", OK, "class 0 has 57.2 %")


def test_a_target_that_is_not_a_class() -> None:
    def height(output: Tensor) -> Tensor:
        return output[:, 0]

    findings = examine(Faulty(gain=0.3), X, height)
    assert (findings.issues, findings.target) == ((), "height")
    assert findings.findings[-1] == Finding("clear class", OK, "the target is height")


def test_several_inputs_are_refused() -> None:
    message = message_of(examine, Faulty(), X.expand(2, -1, -1, -1))
    assert message == "examine must get one input, got 2; pass them one at a time"


class Fails(Switchable):
    """Fails after this number of evaluations."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.remaining = after

    def forward(self, x: Tensor) -> Tensor:
        self.remaining -= 1
        if self.remaining < 0:
            raise KeyboardInterrupt
        return super().forward(x)


@pytest.mark.parametrize("after", [0, 1, 3, 8, 20, 1000])
def test_the_network_is_left_as_it_was(after: int) -> None:
    model = Fails(after)
    model.norm.eval()
    model.first.weight.requires_grad_(False)
    model.norm.running_mean.normal_()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    seeded = torch.get_rng_state()
    if after < 1000:
        with pytest.raises(KeyboardInterrupt):
            examine(model, X)
    else:
        examine(model, X)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert flags == ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()])
    assert torch.equal(torch.get_rng_state(), seeded)
    assert torch.is_grad_enabled()
