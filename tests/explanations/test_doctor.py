"""`doctor.examine`: a toy for each illness, that is found and told, and nothing else; healthy networks have none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from extremal import ExtremalError, Network, zoo
from extremal.explanations.preflight.doctor import CHECK_NAMES, Finding, Level, examine
from extremal.explanations.preflight.network_checks import devices
from support import terminal
from support.fake_network import fake_network, save_image
from support.toys import Boxes, Switchable, texture

SIDE = 24
X = texture(1, 3, SIDE, SIDE)
BOX = (slice(4, 14), slice(6, 16))
LOOK = "look for dropout that does not heed eval(), e.g. F.dropout without training=self.training, and for noise"
OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
AFTER_FINITE, AFTER_REPEATABLE, AFTER_DEPENDS = (
    CHECK_NAMES[1 + CHECK_NAMES.index(name) :] for name in ("finite outputs", "repeatable", "depends on the input")
)


class Ill(nn.Module):
    """`Boxes`, with an illness that is done to its input before or to its output after."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor, Tensor], Tensor] = lambda out, x: out,
        gain: float = 5.0,
    ) -> None:
        super().__init__()
        self.boxes = Boxes(X, [BOX], gain=gain)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.boxes(x), x)


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


ILL: dict[str, tuple[nn.Module, Tensor, dict[str, object], Finding, tuple[str, ...]]] = {
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
            *("weights", PROBLEM, "NaN or infinite are 3 of '1.weight', 1 of '1.bias', 1 of '2.running_mean'"),
            "load the weights again",
        ),
        CHECK_NAMES[2:],
    ),
    "a picture that is not scaled": (
        *(Ill(lambda x: x / 127.5 - 1), (X + 1) * 127.5, {}),
        Finding(
            *("input range", WARNING, "values lie from 0 to 255, as those of a picture that is not scaled"),
            "divide by 255 and normalise as in training",
        ),
        (),
    ),
    "values far from zero": (
        *(Ill(lambda x: x / 30), X * 30, {}),
        Finding("input range", WARNING, "values lie from -30 to 30, far from 0", "normalise as in training"),
        (),
    ),
    "a shape that it does not take": (
        *(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), X, {}),
        Finding(
            *("evaluation", PROBLEM),
            "an input of 3 × 24 × 24 fails: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x1728 and 5x2)",
            "hand in an input of the shape and type that the network takes",
        ),
        CHECK_NAMES[CHECK_NAMES.index("input kept") :],
    ),
    "an input that is changed": (
        *(Ill(in_place), X, {}),
        Finding(
            *("input kept", WARNING),
            "the network changes 72 of 1728 values of the tensor it is given, which explain copies before",
            "start its forward with x = x.clone(), or take out inplace=True",
        ),
        (),
    ),
    "dropout in training mode": (
        *(nn.Sequential(Boxes(X, [BOX]), nn.Dropout(0.5)), X, {}),
        Finding(
            *("mode", WARNING),
            "3 of 3 modules are in training mode, among them 1 (Dropout); outputs differ by 4.82 from evaluation mode",
            "call eval() on it before calls of your own, or they differ from what is explained",
        ),
        (),
    ),
    "batch norm in training mode": (
        *(nn.Sequential(Boxes(X, [BOX]), nn.BatchNorm1d(2)), X, {}),
        Finding(
            *("mode", WARNING),
            "3 of 3 modules are in training mode, among them 1 (BatchNorm1d), in which it fails: ValueError: Expected "
            "more than 1 value per channel when training, got input size torch.Size([1, 2])",
            "call eval() on it before calls of your own, or they differ from what is explained",
        ),
        (),
    ),
    "an output that is not finite": (
        *(Ill(after=lambda out, x: out + torch.log(-x.abs().amax((1, 2, 3)))[:, None]), X, {}),
        Finding(
            *("finite outputs", PROBLEM),
            "outputs are NaN or infinite: 2 for the whole input, 2 for the input destroyed by blur, 2 for the input "
            "destroyed by fade, 2 for the input destroyed by noise",
            "check the weights and the range of the input",
        ),
        AFTER_FINITE,
    ),
    "not finite where it is faded, and asked so": (
        *(Ill(after=lambda out, x: out + 0 / x.abs().amax((1, 2, 3))[:, None]), X, {"perturbation": "fade"}),
        Finding(
            *("finite outputs", PROBLEM, "outputs are NaN or infinite: 2 for the input destroyed by fade"),
            "keep roots, logarithms and divisions in the network away from zero",
        ),
        AFTER_FINITE,
    ),
    "not finite where it is faded": (
        *(Ill(after=lambda out, x: out + 0 / x.abs().amax((1, 2, 3))[:, None]), X, {}),
        Finding(
            *("finite outputs", WARNING, "outputs are NaN or infinite: 2 for the input destroyed by fade"),
            "keep roots, logarithms and divisions in the network away from zero",
        ),
        (),
    ),
    "dropout that is always on": (
        *(Ill(after=lambda out, x: F.dropout(out, 0.5)), X, {"seed": 3}),
        Finding("repeatable", PROBLEM, "outputs of the same input differ by 9.64, the largest is 9.64", LOOK),
        AFTER_REPEATABLE,
    ),
    "a mean over the batch": (
        *(Ill(after=lambda out, x: out + out.mean(0)), X, {}),
        Finding(
            *("rows by themselves", PROBLEM, "the output of an input differs by 5.01 with others beside it"),
            "look for statistics over the batch axis, e.g. batch norm without running ones",
        ),
        (),
    ),
    "a batch size that is fixed": (
        *(Ill(lambda x: x.reshape(1, 3, SIDE, SIDE)), X, {}),
        Finding(
            *("rows by themselves", PROBLEM),
            "a batch of 3 fails: RuntimeError: shape '[1, 3, 24, 24]' is invalid for input of size 5184",
            "let it take batches of any size",
        ),
        (),
    ),
    "a constant": (
        *(Ill(after=lambda out, x: 0 * out + torch.tensor([3.0, 0.0])), X, {}),
        Finding(
            *("depends on the input", PROBLEM, "the input, noise, zeros and ones all score 3"),
            "look for weights of zero or an output that is a constant",
        ),
        AFTER_DEPENDS,
    ),
    "a class that is a constant": (
        *(Ill(), X, {"target": 1, "score": "logit"}),
        Finding(
            *("depends on the input", PROBLEM, "the input, noise, zeros and ones all score 0"),
            "look for weights of zero or an output that is a constant",
        ),
        AFTER_DEPENDS,
    ),
    "softmax at its end": (
        *(nn.Sequential(Ill(), nn.Softmax(1)), X, {}),
        Finding(
            *("raw outputs", WARNING, "outputs are probabilities: none is negative, and they sum to 1"),
            "take the softmax off the end of the network: scores are made of logits",
        ),
        (),
    ),
    "no gradient": (
        *(Ill(lambda x: x.detach()), X, {}),
        Finding(
            *("gradient", PROBLEM, "the score has no gradient with respect to the input"),
            "look for no_grad, detach, rounding or argmax inside the network",
        ),
        (),
    ),
    "a gradient that is zero": (
        *(Ill(after=lambda out, x: out.round()), X, {}),
        Finding(
            *("gradient", PROBLEM, "slopes at constant masks sum to at most 0"),
            "look for steps or saturated functions inside the network, or ask with another score",
        ),
        (),
    ),
    "a gradient that is not finite": (
        *(Ill(after=lambda out, x: out + (0 * mean(x)).sqrt()[:, None]), X, {}),
        Finding(
            *("gradient", PROBLEM, "2304 of 2304 slopes at constant masks are NaN or infinite"),
            "look for roots, norms or logarithms of zero inside the network",
        ),
        (),
    ),
    "mean colour, asked with blur": (
        *(Ill(after=lambda out, x: scores(5 * mean(x))), X / 4 + 1, {}),
        Finding(
            *("destroyed", PROBLEM, "the whole scores 5.026; destroyed by blur 5.02, fade 0, noise 5.041"),
            "ask with the perturbation fade, which takes 5.03 away",
        ),
        (),
    ),
    "a class that only the destroyed input has": (
        *(Ill(after=lambda out, x: scores(-5 * mean(x))), X / 4 + 1, {"target": 0}),
        Finding(
            *("destroyed", PROBLEM, "the whole scores -5.026; destroyed by blur -5.02, fade 0, noise -5.041"),
            "none takes the answer away: ask about a class that the network sees, or with another score",
        ),
        (),
    ),
    "a probability at its end": (
        *(Ill(gain=12.0), X, {"score": "probability"}),
        Finding(
            *("saturation", PROBLEM),
            "the probability of class 0 is 0.9999906, where probability has 9.4e-06 of the margin's slope",
            "ask with the score margin or logit",
        ),
        (),
    ),
    "two classes alike": (
        *(Ill(gain=0.3), X, {}),
        Finding(
            *("clear class", WARNING, "class 0 has 57.2 %, then class 1 42.8 %"),
            "name the class that is meant, or explain one after the other",
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", [*ILL])
def test_an_illness_is_found_and_no_other(name: str) -> None:
    model, x, options, finding, unchecked = ILL[name]
    before = x.clone()
    found = examine(model, x, **options)  # type: ignore[arg-type]
    assert found.issues == (finding,)
    assert found.skipped == unchecked
    assert found.ok == (finding.level is WARNING)
    assert [one.name for one in found.findings] + [*unchecked] == [*CHECK_NAMES]
    assert torch.equal(x, before)


def test_an_input_that_is_changed_and_not_copied() -> None:
    x = texture(1, 2, SIDE)  # a signal

    class Changes(Boxes):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(in_place(x))

    assert examine(Changes(x, [(slice(4, 14),)]), x).issues == (
        Finding(
            *("input kept", PROBLEM, "the network changes 2 of 48 values of the tensor it is given"),
            "start its forward with x = x.clone(), or take out inplace=True",
        ),
    )


def test_several_devices() -> None:
    model = nn.Linear(2, 2)
    with FakeTensorMode():
        model.register_buffer("elsewhere", torch.zeros(2, device="cuda:0"))
    assert devices(Network(model)) == Finding(
        "devices", PROBLEM, "the weights lie on cpu, cuda:0", "move it: .to('cuda:0')"
    )


def test_a_gradient_that_cannot_be_taken() -> None:
    (finding,) = examine(Ill(overwritten), X).issues
    told = "the gradient cannot be taken: RuntimeError: one of the variables needed for gradient computation has been"
    assert (finding.name, finding.level) == ("gradient", PROBLEM)
    assert finding.measured.startswith(told)
    assert finding.remedy == "look for operations that change tensors in place, like x += 1 or relu(inplace=True)"


@pytest.mark.parametrize(
    ("x", "measured", "remedy"),
    [
        (X / 2 + 0.5, "values lie from 0 to 1, normalised pictures from -2 to 2", "normalise as in training"),
        (X * 3, "values lie from -3 to 3, normalised pictures from -2 to 2", "normalise once, as in training"),
        (X * 2.3, "values lie from -2.3 to 2.3, normalised pictures from -2 to 2", ""),
        (X * 2, "values lie from -2 to 2, normalised pictures from -2 to 2", ""),
    ],
)
def test_the_range_of_normalised_pictures(x: Tensor, measured: str, remedy: str) -> None:
    net = Network(Ill(), mean=[0.5] * 3, std=[0.25] * 3)
    found = examine(net, x)
    level = WARNING if remedy else OK
    assert next(one for one in found.findings if one.name == "input range") == Finding(
        "input range", level, measured, remedy
    )


@pytest.mark.parametrize("score", ["margin", "logit", "probability"])
@pytest.mark.parametrize("perturbation", ["blur", "fade", "noise", "constant"])
def test_a_healthy_toy_has_no_illness(score: str, perturbation: str) -> None:
    found = examine(Ill(), X, score=score, perturbation=perturbation)
    assert (found.issues, found.skipped, found.ok, found.target) == ((), (), True, "class 0")
    assert next(one for one in found.findings if one.name == "mode").measured == (
        "2 of 2 modules are in training mode, which changes nothing"
    )


def test_buffers_may_be_infinite() -> None:
    model = Ill()
    model.register_buffer("hidden", torch.full((2, 2), -torch.inf))
    assert examine(model, X).issues == ()


def test_the_real_network_has_no_illness() -> None:
    found = examine("embedded", data.coffee())
    assert (found.issues, found.skipped, found.target, found.network) == ((), (), "espresso", "embedded")


def test_a_class_that_is_named_need_not_be_clear() -> None:
    found = examine(Ill(gain=0.3), X, 0)
    assert found.findings[-1] == Finding("clear class", OK, "class 0 has 57.2 %")


def test_a_question_that_is_no_class() -> None:
    def height(output: Tensor) -> Tensor:
        return output[:, 0]

    found = examine(Ill(gain=0.3), X, height)
    assert (found.issues, found.target) == ((), "height")
    assert found.findings[-1] == Finding("clear class", OK, "asked about height")


def test_several_inputs_are_refused() -> None:
    with pytest.raises(ExtremalError) as error:
        examine(Ill(), X.expand(2, -1, -1, -1))
    assert str(error.value) == "an examination must be of one input, got 2; pass them one after the other"


class Fails(Switchable):
    """Fails after so many evaluations."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
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


class TestCommand:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(zoo, "load", lambda name, weights=None: fake_network())
        save_image(tmp_path / "cat.png")

    @staticmethod
    def call(*arguments: str) -> tuple[int, str, str]:
        return terminal.call("doctor", *arguments)

    def test_all_is_right(self) -> None:
        code, out, err = self.call("fake", "cat.png")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "cat.png: fake, asked about tabby, tabby cat"
        assert [line.split(":")[0] for line in lines[1:-1]] == [f"  ok       {name}" for name in CHECK_NAMES]
        assert lines[-1] == "problems: 0, warnings: 0"

    def test_a_problem(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sick = fake_network()
        sick.model = Ill(after=lambda out, x: 0 * out)
        monkeypatch.setattr(zoo, "load", lambda name, weights=None: sick)
        code, out, err = self.call("fake", "cat.png")
        assert (code, err) == (1, "")
        assert out.splitlines()[-4:] == [
            "  problem  depends on the input: the input, noise, zeros and ones all score 0",
            "           to do: look for weights of zero or an output that is a constant",
            f"left out, as a problem comes before them: {', '.join(AFTER_DEPENDS)}",
            "problems: 1, warnings: 0",
        ]

    def test_json(self) -> None:
        code, out, err = self.call("fake", "cat.png", "--json", "--target", "tiger cat", "--score", "probability")
        found = json.loads(out)
        assert (code, err) == (1, "")
        assert list(found) == ["path", "network", "target", "findings", "unchecked", "ok"]
        assert (found["path"], found["network"], found["target"], found["ok"]) == (
            "cat.png",
            "fake",
            "tiger cat",
            False,
        )
        destroyed = next(one for one in found["findings"] if one["name"] == "destroyed")
        assert (destroyed["level"], destroyed["ok"]) == ("problem", False)
        assert list(destroyed) == ["name", "level", "measured", "remedy", "ok"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["fake", "no.png"], "an image must be an existing file, got 'no.png'; check the path"),
            (["fake", "cat.png", "--target", "9"], "target must lie in 0..1 for fake, got 9"),
            (
                ["fake", "cat.png", "--perturbation", "x"],
                "perturbation must be one of blur, fade, constant, noise or a callable, got 'x'",
            ),
        ],
    )
    def test_bad_input(self, arguments: list[str], message: str) -> None:
        assert self.call(*arguments) == (2, "", f"error: {message}\n")
