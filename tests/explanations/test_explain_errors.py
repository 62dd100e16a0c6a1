"""What `explain` says of networks, targets and callables that break a rule."""

import math
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.explanations.explain import explain
from extremal.explanations.verdict import Status
from extremal.masking.solvers import Path
from extremal.networks.network import Network
from extremal.scores import SCORES
from support.bad_networks import Toy

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FAST = Path(steps=3, polish=2, draws=2)


def run(answer: Callable[[Tensor], object] = lambda scores: scores, target: object = 0, **options: object) -> object:
    return explain(Toy(answer), X, target, areas=(0.2,), solver=FAST, **options)


def refused(kind: type[ExtremalError], *args: object, **options: object) -> str:
    with pytest.raises(kind) as caught:
        run(*args, **options)
    return str(caught.value)


class TestOutputs:
    def test_nan(self) -> None:
        assert refused(ExtremalValueError, lambda y: y * math.nan) == (
            "a network must return finite scores, Toy returned 4 NaN or infinite ones for the whole input; "
            "check its weights and the range of the input"
        )

    def test_nan_for_the_destroyed_input(self) -> None:
        message = refused(
            ExtremalValueError, lambda y: torch.where(y.abs() < 0.01, math.nan, y), score="logit", perturbation="blur"
        )
        assert message == (
            "a network must return finite scores, Toy returned 2 NaN or infinite ones for the destroyed input; "
            "check its weights and the range of the input"
        )

    def test_nan_on_the_way_is_told_by_the_status(self) -> None:
        calls = []

        def later(y: Tensor) -> Tensor:
            calls.append(len(y))
            return y * math.nan if len(calls) == 10 else y

        with pytest.warns(RuntimeWarning) as told:
            result = run(later)
        assert str(told[0].message) == (
            "the run of input 0 met a score that is not finite and ended; its masks are zero, its status says so"
        )
        assert result.status == ((Status.NOT_FINITE,), (Status.NOT_FINITE,))
        assert not result.masks.any()

    def test_tuple(self) -> None:
        assert refused(ExtremalTypeError, lambda y: (y, y)) == (
            "a network must return a tensor (B, classes) or an output with logits, Toy returned a tuple; "
            "pass a callable on the output as target, or wrap the network"
        )

    def test_dict_without_logits(self) -> None:
        assert refused(ExtremalTypeError, lambda y: {"scores": y, "boxes": y}) == (
            "a network must return a tensor (B, classes) or an output with logits, Toy returned a dict with keys "
            "scores, boxes; pass a callable on the output as target, or wrap the network"
        )

    @pytest.mark.parametrize("answer", [lambda y: {"logits": y}, lambda y: SimpleNamespace(logits=y)])
    def test_logits_in_a_container(self, answer: Callable[[Tensor], object]) -> None:
        assert torch.equal(run(answer).masks, run().masks)

    def test_integers(self) -> None:
        assert refused(ExtremalTypeError, lambda y: y.long()) == (
            "a network must return floating scores, Toy returned torch.int64"
        )

    def test_no_classes(self) -> None:
        assert refused(ExtremalValueError, lambda y: y[:, 0]) == (
            "a network must return (B, classes), Toy returned shape (2,); wrap it, e.g. to [:, None]"
        )

    def test_an_axis_without_classes(self) -> None:
        assert refused(ExtremalValueError, lambda y: y[:, :0], target=None) == (
            "a network must return at least one class, Toy returned shape (2, 0)"
        )

    def test_sparse_scores(self) -> None:
        assert refused(ExtremalTypeError, lambda y: y.to_sparse()) == (
            "a network must return dense scores, Toy did not; end it with .to_dense()"
        )

    def test_independent_of_the_input(self) -> None:
        message = refused(ExtremalValueError, lambda y: y * 0 + 1, score="logit")
        assert message == (
            "a score must change when the input is destroyed, input 0 scores 1 whole and 1 destroyed; the network does "
            "not depend on the input, or the perturbation does not change it: try another perturbation, score or target"
        )

    def test_no_gradient(self) -> None:
        assert refused(ExtremalValueError, lambda y: y.detach()) == (
            "a network's score must depend on its input with a gradient, Toy's does not; "
            "look for no_grad, detach, rounding or argmax inside it, or pass solver='search' (--solver search), which "
            "needs none"
        )

    def test_gradient_of_something_else(self) -> None:
        """The score requires a gradient, but of something else than the input."""
        weight = torch.ones(1, requires_grad=True)
        assert refused(ExtremalValueError, lambda y: y.detach() * weight) == (
            "a network's score must depend on its input with a gradient, Toy's does not; "
            "look for no_grad, detach, rounding or argmax inside it, or pass solver='search' (--solver search), which "
            "needs none"
        )

    def test_gradient_of_zero(self) -> None:
        assert refused(ExtremalValueError, lambda y: (y * 64).round()) == (
            "a network's score must depend on its input with a gradient, Toy's has one that is zero everywhere; "
            "look for no_grad, detach, rounding or argmax inside it, or pass solver='search' (--solver search), which "
            "needs none"
        )

    def test_changed_in_place(self) -> None:
        def changed(y: Tensor) -> Tensor:
            root = y.exp()
            scores = root * 1
            root += 1
            return scores

        message = refused(ExtremalValueError, changed)
        assert message.startswith(
            "a network must not change in place what its gradient needs, Toy does; "
            "replace operations like x += 1 or relu(inplace=True) inside it (one of the variables needed for gradient "
            "computation has been modified by an inplace operation"
        )

    def test_inputs_that_mix(self) -> None:
        message = refused(ExtremalValueError, lambda y: y - y.mean(0) + 0.01 * y, score="logit")
        assert re.fullmatch(
            r"a network must score each input independently, Toy's score changed by [0-9.e-]+ when another input was "
            "added to the batch; look for statistics over the batch axis, or noise, inside it",
            message,
        )

    @pytest.mark.parametrize("shift", [0.0, 2.0])
    def test_inputs_that_mix_a_little_of_what_destroying_changes(self, shift: float) -> None:
        """What counts is how much destroying changes the score, which may have a large constant."""
        message = refused(ExtremalValueError, lambda y: y + 0.3 * y.mean(0) + shift, score="logit")
        assert message.startswith("a network must score each input independently, Toy's score changed by ")

    def test_weights_on_several_devices(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(512, 2, device="meta"))
        with pytest.raises(ExtremalValueError) as caught:
            explain(model, X, 0, areas=(0.2,), solver=FAST)
        assert str(caught.value) == (
            "a network must be on one device with its values, Sequential is on cpu, meta; "
            "move it with .to(device), or load its weights"
        )

    def test_weights_that_are_not_finite(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
        with torch.no_grad():
            model[1].weight[0, :3] = math.nan
        with pytest.raises(ExtremalValueError) as caught:
            explain(model, X, 0, areas=(0.2,), solver=FAST)
        assert str(caught.value) == (
            "a network must return finite scores, Sequential returned 2 NaN or infinite ones for the whole input, 3 of "
            "its weights '1.weight' are not finite; load it again"
        )

    def test_buffers_that_are_meant_to_be_infinite_are_not_blamed(self) -> None:
        model = nn.Sequential(Toy(lambda y: y * math.nan))
        model.register_buffer("hidden", torch.full((3,), -math.inf))
        with pytest.raises(ExtremalValueError) as caught:
            explain(model, X, 0, areas=(0.2,), solver=FAST)
        assert str(caught.value) == (
            "a network must return finite scores, Sequential returned 4 NaN or infinite ones for the whole input; "
            "check its weights and the range of the input"
        )

    def test_not_a_network(self) -> None:
        with pytest.raises(ExtremalTypeError) as caught:
            explain(3, X)  # type: ignore[arg-type]
        assert str(caught.value) == (
            "a network must be a torch.nn.Module or a function (B, C, *S) -> (B, classes), got int"
        )


class TestTargets:
    @pytest.mark.parametrize("index", [2, -1, 10**6])
    def test_out_of_range(self, index: int) -> None:
        assert (
            refused(ExtremalValueError, target=index)
            == f"target must lie in 0..1 for Toy, got {index}; classes are counted from 0"
        )

    @pytest.mark.parametrize("target", [1.5, True, b"cat"])
    def test_wrong_type(self, target: object) -> None:
        assert refused(ExtremalTypeError, target=target) == (
            f"target must be a class index, a class name or a callable on the output, got {type(target).__name__}"
        )

    @pytest.mark.parametrize("target", [[0], (0, 1, 1), torch.tensor([0, 1, 1])])
    def test_wrong_count(self, target: object) -> None:
        assert refused(ExtremalValueError, target=target) == (
            f"target must be one class, or one for each of 2 inputs, got {len(target)}"
        )

    def test_names_where_there_are_none(self) -> None:
        assert refused(ExtremalValueError, target="cat") == (
            "Toy has no class names, got 'cat'; give the class as an index"
        )

    def test_unknown_name(self) -> None:
        net = Network(Toy(), labels=("tabby, tabby cat", "tiger cat"))
        with pytest.raises(ExtremalValueError) as caught:
            explain(net, X, "tigger cat")
        assert str(caught.value) == ("target must be a class of Toy, got 'tigger cat'; nearest: tiger cat, tabby cat")

    @pytest.mark.parametrize(
        "target", [[0, 1], (0, 1), torch.tensor([0, 1]), ["tabby", 1], ["TABBY CAT", "tiger cat"], range(2)]
    )
    def test_one_for_each_input(self, target: object) -> None:
        result = explain(Network(Toy(), labels=("tabby, tabby cat", "tiger cat")), X, target, areas=(0.2,), solver=FAST)
        assert result.target == (0, 1)
        assert result.target_names == ("tabby, tabby cat", "tiger cat")

    def test_callable(self) -> None:
        def contrast(output: Tensor) -> Tensor:
            return output[:, 0]

        result = run(target=contrast)
        assert (result.target, result.target_names) == ((None, None), ("contrast", "contrast"))

    @pytest.mark.parametrize(
        ("ask", "got"), [(lambda y: y, "(2, 2)"), (lambda y: y.sum(), "()"), (lambda y: y[:1, 0], "(1,)")]
    )
    def test_callable_with_a_wrong_shape(self, ask: Callable[[Tensor], Tensor], got: str) -> None:
        assert refused(ExtremalValueError, target=ask) == (
            f"a target callable must return one floating score an input, shape (2,), got {got} torch.float32"
        )

    def test_callable_that_returns_no_tensor(self) -> None:
        assert refused(ExtremalTypeError, target=lambda y: y.tolist()) == (
            "a target callable must return a tensor (B,), got list"
        )

    def test_callable_with_a_wrong_dtype(self) -> None:
        assert refused(ExtremalValueError, target=lambda y: y.argmax(1)) == (
            "a target callable must return one floating score an input, shape (2,), got (2,) torch.int64"
        )


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"game": "keep"}, "game must be one of preserve, delete, dual, a Game or a callable, got 'keep'"),
            ({"solver": "adam"}, "solver must be one of consensus, path, penalty, search or a solver, got 'adam'"),
            (
                {"score": "loss"},
                f"score must be one of {', '.join(SCORES)} or a callable, got 'loss'",
            ),
            (
                {"perturbation": "fog"},
                "perturbation must be one of mixed, blur, fade, constant, noise, a callable, or several of these, "
                "got 'fog'",
            ),
        ],
    )
    def test_unknown_names(self, options: dict[str, str], message: str) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explain(Toy(), X, 0, **options)
        assert str(caught.value) == message

    @pytest.mark.parametrize("areas", [(0.1, "x"), 0.1, None])
    def test_areas_that_are_no_numbers(self, areas: object) -> None:
        with pytest.raises(ExtremalTypeError) as caught:
            explain(Toy(), X, 0, areas=areas)
        assert str(caught.value) == f"areas must be a sequence of numbers, got {areas!r}; e.g. (0.05, 0.1)"

    @pytest.mark.parametrize(("area", "got"), [(0.0, "0"), (1, "1"), (5, "5"), (-0.1, "-0.1"), (math.nan, "nan")])
    def test_areas_outside_of_0_and_1(self, area: float, got: str) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explain(Toy(), X, 0, areas=(0.1, area))
        assert str(caught.value) == (
            f"areas must lie in (0, 1), got {got}; an area is the share of places kept, e.g. 0.05 or 5%"
        )

    def test_areas_twice_and_none(self) -> None:
        with pytest.raises(ExtremalValueError, match=r"^areas must be distinct, got 0\.1 twice; leave one out$"):
            explain(Toy(), X, 0, areas=(0.1, 0.2, 0.1))
        with pytest.raises(ExtremalValueError, match=r"^areas must name at least one area, got none; e\.g\. "):
            explain(Toy(), X, 0, areas=())

    def test_areas_are_sorted_and_it_is_told(self) -> None:
        with pytest.warns(UserWarning, match=r"^areas were sorted: 0\.1, 0\.2$"):
            result = explain(Toy(), X, 0, areas=(0.2, 0.1), solver=FAST)
        assert result.areas == (0.1, 0.2)


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, "seed must lie in 0..2**32 - 1, got -1; e.g. 0"),
        (2**32, "seed must lie in 0..2**32 - 1, got 4294967296; e.g. 0"),
    ],
)
def test_seeds_that_no_generator_takes(seed: int, message: str) -> None:
    assert refused(ExtremalValueError, seed=seed) == message


@pytest.mark.parametrize("seed", [0.5, "0", True])
def test_seeds_are_whole_numbers(seed: object) -> None:
    assert refused(ExtremalTypeError, seed=seed) == f"seed must be a whole number, got {seed!r}; e.g. 0"
