"""Values of the wrong kind are refused in one sentence, and what was not found is not reported as found."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import extremal
from extremal import Explanation, ExtremalTypeError, ExtremalValueError, Network, explain, solvers
from extremal.masking.perturbations import Blur
from extremal.masking.solvers import Penalty
from support.errors import message_of
from support.toys import build_classifier

SHORT = solvers.Path(steps=3, polish=2, search=2)
X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def refuse_call(*_: object) -> None:
    raise AssertionError("the network was asked")


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (extremal.explain, (X, 0), "on_step"),
        (extremal.explain, (X, 0), "on_evidence"),
        (extremal.judge, (X, X[:, :, None], 0), "on_evidence"),
        (extremal.explain_channels, (X, ""), "on_step"),
        (extremal.class_channels, (X, 0, ""), "on_step"),
        (extremal.invert, ("", X), "on_step"),
        (extremal.visualise, ("", [0]), "on_step"),
        (extremal.explain_sets, (X, 0), "on_part"),
        (extremal.contrast, (X, 0), "on_part"),
        (extremal.explain_tokens, (X, extremal.scores.Answer()), "on_part"),
        (extremal.smallest_area, (None,), "on_progress"),
        (extremal.stability, (X, None), "on_progress"),
        (extremal.minimal, (None,), "on_evaluations"),
    ],
)
def test_callbacks_that_cannot_be_called(
    function: Callable[..., object], arguments: tuple[object, ...], name: str
) -> None:
    network = nn.Identity()
    network.register_forward_pre_hook(refuse_call)
    message = message_of(function, network, *arguments, **{name: 7})
    assert message == f"{name} must be a function, got int; leave it out"


@pytest.mark.parametrize("function", [extremal.explain, extremal.explain_channels])
def test_progress_that_is_neither_true_nor_false(function: Callable[..., object]) -> None:
    message = message_of(function, nn.Identity(), X, "0", progress="x")
    assert message.startswith("progress must be ")


class DoubleOutput(nn.Module):
    """A network in single precision, whose scores are in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build_classifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).double()


class BrokenBand(nn.Module):
    """The mean of a square; not a number where the mean of all places is in a band."""

    def forward(self, x: Tensor) -> Tensor:
        square, mean = x[..., 4:8, 4:8].mean((1, 2, 3)), x.mean((1, 2, 3))
        square = square.where((mean <= 0.05) | (mean >= 0.1), torch.nan)
        return torch.stack([4 * square, 0 * square], 1)


class InPlace(nn.Module):
    """A network that normalises its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build_classifier()

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.45).div_(0.25)
        return self.model(x)


def test_a_network_that_changes_its_input_scores_equal_inputs_equally() -> None:
    x = torch.cat([X, X])
    result = explain(InPlace(), x, 0, areas=(0.3,), perturbation="fade", score="logit", solver=SHORT)
    with torch.no_grad():
        expected = float(InPlace()(X.clone())[0, 0])
    assert result.score_full.tolist() == pytest.approx([expected, expected], abs=1e-5)
    assert torch.equal(result.inputs, x)


@pytest.fixture(scope="module")
def found() -> Explanation:
    return explain(build_classifier(), X, 0, areas=(0.1, 0.3), solver=SHORT)


@pytest.mark.parametrize("name", ["consensus", "path", "search"])
def test_scores_in_double_precision(name: str) -> None:
    solver = {
        "consensus": solvers.Consensus(steps=2, least=1, columns=2, draws=1, repair_steps=4),
        "path": SHORT,
        "search": solvers.Search(evaluations=60),
    }[name]
    models = build_classifier(), DoubleOutput()
    single, double = (explain(model, X, 0, areas=(0.3,), solver=solver) for model in models)
    assert double.scores.dtype == torch.float32
    torch.testing.assert_close(double.scores, single.scores, rtol=1e-4, atol=1e-4)


def test_channels_of_scores_in_double_precision() -> None:
    found = extremal.explain_channels(DoubleOutput(), X, "model.1", 0, counts=(1, 2), solver=SHORT)
    assert found.counts == (1, 2)


@pytest.mark.filterwarnings("ignore:the run of input 0 met a score")
def test_a_mask_that_is_not_finite_is_not_sufficient(tmp_path: Path) -> None:
    x = torch.ones(2, 3, 16, 16)
    x[1] *= 0.3
    result = explain(BrokenBand(), x, 0, areas=(0.1, 0.5), perturbation="fade", score="logit", effort="fast")
    assert [row[0] for row in result.status] == ["not finite", "converged"]
    assert [str(verdict) for verdict in result.verdict[0]] == ["suspect", "suspect"]
    assert result.verdict[0][0].reason == "a score was not finite during the run, so nothing was found"
    result.save(tmp_path / "found.safetensors")
    assert Explanation.load(tmp_path / "found.safetensors").verdict == result.verdict
    assert result.smallest() is None
    assert result.smallest(image=1) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": solvers.Path}, "solver must be an object, got the class Path"),
        ({"perturbation": Blur}, "perturbation must be an object, got the class Blur"),
        ({"perturbation": ("fade", Blur)}, "perturbation must be an object, got the class Blur"),
        ({"game": solvers.Path}, "game must be an object, got the class Path"),
        ({"target": extremal.scores.Box}, "target must be an object, got the class Box"),
        ({"target": [extremal.scores.Box]}, "target must be an object, got the class Box"),
        ({"within": "left"}, "within must be a tensor or an array"),
        ({"within": Image.new("1", (16, 16))}, "within must be a tensor or an array"),
        ({"units": "left"}, "units must be a tensor or an array"),
    ],
)
def test_values_of_the_wrong_kind(options: dict[str, object], message: str) -> None:
    with pytest.raises(ExtremalTypeError, match=message):
        explain(build_classifier(), X, areas=(0.1,), **{"target": 0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [(0, 1), "ab"])
def test_labels_are_names(labels: object) -> None:
    with pytest.raises(ExtremalTypeError, match="labels must be the names of the classes"):
        Network(build_classifier(), labels=labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: solvers.Path(temperature=0), "temperature of path must be above 0 and finite, got 0"),
        (lambda: solvers.Path(rate=float("nan")), "rate of path must be above 0 and finite, got nan"),
        (lambda: Penalty(rate=-1), "rate of penalty must be above 0 and finite, got -1"),
        (lambda: Penalty(momentum=float("nan")), r"momentum of penalty must lie in \[0, 1\], got nan"),
        (lambda: solvers.Consensus(momentum=float("nan")), r"momentum of consensus must lie in \[0, 1\], got nan"),
        (lambda: solvers.Consensus(rate=float("inf")), "rate of consensus must be above 0 and finite, got inf"),
        (lambda: solvers.Consensus(inside=float("inf")), "inside of consensus must be at least 0 and finite, got inf"),
        (lambda: solvers.Search(within=-1), "within of search must be at least 0 and finite, got -1"),
        (lambda: solvers.Consensus(inside=10**400), "inside of consensus must be at least 0 and finite, got a number"),
        (lambda: solvers.Path(betas=(0.9, 1.0)), r"betas of path must be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
    ],
)
def test_settings_of_solvers(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ExtremalValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: solvers.Consensus(rate="1"), "rate of consensus must be a number, got str"),
        (lambda: solvers.Consensus(decay="1"), "decay of consensus must be a number, got str"),
        (lambda: solvers.Search(choice="1"), "choice of search must be a number, got str"),
        (lambda: solvers.Path(betas=0.9), "betas of path must be a sequence of numbers, got 0.9"),
    ],
)
def test_kinds_of_settings_of_solvers(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ExtremalTypeError, match=message):
        build()


def test_settings_of_solvers_are_plain_numbers(tmp_path: Path) -> None:
    solver = solvers.Path(steps=np.int64(3), polish=2, search=2, rate=np.float32(0.5))  # type: ignore[arg-type]
    explain(build_classifier(), X, 0, areas=(0.1,), solver=solver).save(tmp_path / "found.safetensors")
    settings = Explanation.load(tmp_path / "found.safetensors").settings["solver"]
    assert (settings["steps"], settings["rate"]) == (3, 0.5)


@pytest.mark.parametrize("name", ["smallest", "regions", "curve", "verdicts"])
def test_inputs_that_do_not_exist(found: Explanation, name: str) -> None:
    with pytest.raises(ExtremalValueError, match=r"image must lie in 0\.\.0 for 1 inputs, got 3"):
        getattr(found, name)(image=3)


@pytest.mark.parametrize("image", ["0", 0.0, True])
def test_an_input_is_named_by_a_whole_number(found: Explanation, image: object) -> None:
    with pytest.raises(ExtremalTypeError, match=f"image must be a whole number, got {image!r}; e.g. 0"):
        found.smallest(image=image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: extremal.explain_channels(build_classifier(), X, 1, 0),  # type: ignore[arg-type]
        lambda: extremal.invert(build_classifier(), 1, X),  # type: ignore[arg-type]
        lambda: explain(build_classifier(), X, extremal.scores.Similarity(X, 1)),  # type: ignore[arg-type]
    ],
)
def test_a_layer_is_named(call: Callable[[], object]) -> None:
    assert message_of(call) == (
        "a layer must be the name of a module in Sequential, got 1; did you mean '1'? extremal.layers(network) "
        "or `extremal layers` lists "
        "them"
    )


@pytest.mark.parametrize("images", ["cat.png", np.zeros((16, 16, 3), np.uint8), Image.new("RGB", (16, 16))])
def test_images_of_a_class_are_a_list(images: object) -> None:
    with pytest.raises(ExtremalTypeError, match="images must be a list of images, or prepared inputs"):
        extremal.class_channels(build_classifier(), images, "1", 0)  # type: ignore[arg-type]


def test_results_of_another_kind() -> None:
    network = build_classifier()
    channels = extremal.explain_channels(network, X, "0", 0, counts=(1,))
    message = "an explanation must be of type {}, got {}; pass what explain returned"
    for kind, result in (("ChannelExplanation", channels), ("NoneType", None)):
        wrong = message.format("Explanation", kind)
        assert message_of(extremal.smallest_area, network, result) == wrong
        assert message_of(extremal.stability, network, X, result) == wrong
    assert message_of(extremal.minimal, network, None) == message.format(
        "Explanation or ChannelExplanation", "NoneType"
    )


@pytest.mark.parametrize("function", [extremal.smallest_area, extremal.minimal])
def test_targets_of_another_number_than_inputs(found: Explanation, function: Callable[..., object]) -> None:
    with pytest.raises(ExtremalValueError, match="target must be one class, or one for each of 1 inputs, got 2"):
        function(build_classifier(), found, [0, 1])


class TestPerturbations:
    """Those that a user wrote."""

    @pytest.mark.parametrize(
        ("perturbation", "message"),
        [
            (lambda x: None, "a perturbation of x must be a function mask -> perturbed x, <lambda> returned NoneType"),
            (lambda x: lambda mask: 3, "a perturbation maps masks (N, K, 1, *S) to a tensor (N, K, C, *S), <lambda> "),
        ],
    )
    def test_return_something_else(self, perturbation: Callable[..., object], message: str) -> None:
        assert message_of(explain, build_classifier(), X, 0, perturbation=perturbation).startswith(message)

    def test_take_masks_of_another_shape(self) -> None:
        class Patches:
            def mask_shape(self, x: Tensor) -> tuple[int, ...]:
                return 4, 4

            def __call__(self, x: Tensor) -> Callable[[Tensor], Tensor]:
                return lambda mask: mask.repeat_interleave(4, 3).repeat_interleave(4, 4) * x.unsqueeze(1)

        assert message_of(explain, build_classifier(), X, 0, perturbation=Patches()).startswith(
            "a perturbation of inputs must take masks of their shape (16, 16), got one with mask_shape (4, 4)"
        )


class Shift(nn.Module):
    """Scores of an input minus 0.3, which is taken from the input in place in some calls, all, or none."""

    def __init__(self, inplace: Iterator[bool]) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.3) if next(self.inplace) else x - 0.3
        means = x.flatten(2).mean(2).sum(1, keepdim=True)
        return torch.cat([means + x.flatten(1)[:, :5].mean(1, keepdim=True), -means], 1)


class TestInputsChangedInPlace:
    @pytest.mark.parametrize("solver", [SHORT, solvers.Consensus(steps=2, least=4), "search"])
    @pytest.mark.parametrize("shape", [(2, 40), (1, 8, 8, 8), (3, 24, 24)])
    @pytest.mark.parametrize("is_channels_last", [False, True])
    def test_give_the_same_answer(
        self, shape: tuple[int, ...], solver: solvers.Solver | str, is_channels_last: bool
    ) -> None:
        if is_channels_last and len(shape) != 3:
            pytest.skip("for images")
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        x = x.contiguous(memory_format=torch.channels_last) if is_channels_last else x
        before = x.clone()
        options = {"areas": (0.2, 0.4), "solver": solver}
        results = [
            explain(Network(Shift(repeat(inplace)), gradient=solver != "search"), x, 0, **options)
            for inplace in (True, False)
        ]
        assert results[0] == replace(results[1], settings=results[0].settings)
        assert torch.equal(x, before)

    def test_in_some_calls_only(self) -> None:
        network = Network(Shift(chain([False, False], repeat(True))), name="shift")
        x = X.contiguous(memory_format=torch.channels_last)
        assert message_of(explain, network, x, 0, areas=(0.2,), solver=SHORT).startswith(
            "a network must change its input in place in every call or in none, shift changed one after it had left "
        )


def test_a_seed_of_numpy() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    found = [extremal.explain_channels(layers, X, "1", 1, seed=seed) for seed in (np.int64(3), 3)]  # type: ignore[arg-type]
    assert found[0] == found[1]
    counted = [extremal.class_channels(layers, X, "1", 1, seed=seed) for seed in (np.int64(3), 3)]  # type: ignore[arg-type]
    assert torch.equal(counted[0].low, counted[1].low)


def test_images_of_a_layer_without_places() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network = Network(layers, mean=[0.0] * 3, std=[1.0] * 3)
    found = extremal.visualise(network, "4", (0, 1), images=X, size=(3, 16, 16), steps=2)
    assert found.pictures.shape == (2, 16, 16, 3)
    assert found.patch_activations.flatten().tolist() == pytest.approx(layers(X)[0].tolist(), abs=1e-5)
