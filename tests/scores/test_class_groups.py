"""Groups of classes: their scores, and how targets name them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal import Network
from extremal.errors import ExtremalError
from extremal.scores import SCORES, ClassGroup, accept_groups
from extremal.scores.class_group import encode_classes
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import logit, margin
from extremal.scores.parse import parse_class, parse_query
from extremal.scores.target import count_targets, parse_target, select_inputs
from support import oracles
from support.errors import message_of

OUTPUT = 3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GROUPS = ((0, 3), (1, 2, 5), (0, 1, 2, 3, 4), (2, 4))
MEMBERS = encode_classes(GROUPS, OUTPUT)
LABELS = ("tabby", "tiger cat", "beagle", "a|b", "pug", "owl")
NET = Network(nn.Flatten(), labels=LABELS, name="toy", groups={"cat": (0, 1), "Dog": (2, 4), "owl": (0, 5)})
SCORES_OUTPUT = torch.zeros(2, 6)


def merge(row: np.ndarray, group: tuple[int, ...]) -> np.ndarray:
    """Return the scores of a row in which the group is one class, the first: its logit is log Σ exp of its members."""
    merged = math.log(sum(math.exp(row[c]) for c in group))
    return np.array([merged, *(value for c, value in enumerate(row) if c not in group)])


@pytest.fixture
def softmax(name: str) -> None:
    if name == "sigmoid":
        pytest.skip("its labels are independent: test_classes.py")


@pytest.mark.parametrize("name", list(SCORES))
class TestScores:
    @pytest.mark.usefixtures("softmax")
    def test_a_group_is_scored_as_one_class(self, name: str) -> None:
        expected = [
            oracles.SCORES[name](merge(row, group), 0) for row, group in zip(OUTPUT.numpy(), GROUPS, strict=True)
        ]
        np.testing.assert_allclose(SCORES[name](OUTPUT, MEMBERS).numpy(), expected, atol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_group_of_one_class_equals_the_class(self, name: str, dtype: torch.dtype) -> None:
        output, classes = (OUTPUT * 20).to(dtype), torch.tensor([0, 3, 5, 2])
        single = torch.nn.functional.one_hot(classes, 6) > 0
        assert torch.equal(SCORES[name](output, single), SCORES[name](output, classes))

    def test_its_gradient_is_exact_and_only_in_its_row(self, name: str) -> None:
        output = OUTPUT.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda y: SCORES[name](y, MEMBERS), output)
        (grad,) = torch.autograd.grad(SCORES[name](output, MEMBERS)[1], output)
        assert float(grad[[0, 2, 3]].abs().max()) == 0.0
        assert bool((grad[1, list(GROUPS[1])] * (-1 if name == "negative" else 1) > 0).all())

    @pytest.mark.usefixtures("softmax")
    def test_it_does_not_change_if_its_classes_exchange_probability(self, name: str) -> None:
        log_p = OUTPUT[:1].log_softmax(1)
        total = log_p[0, [0, 3]].exp().sum()
        scores = []
        for share in (0.01, 0.5, 0.999):
            moved = log_p.clone()
            moved[0, 0], moved[0, 3] = (total * share).log(), (total * (1 - share)).log()
            scores.append(float(SCORES[name](moved, MEMBERS[:1])))
        assert scores == pytest.approx([scores[0]] * 3, abs=1e-12)


@pytest.mark.parametrize(
    ("target", "count", "resolved"),
    [
        (["tabby", ["tiger cat", "pug"]], 2, (0, (1, 4))),
        ([["pug", 0], [2]], 2, ((0, 4), 2)),
        (((0, 1), (2, "owl")), 2, ((0, 1), (2, 5))),
        (["cat", "dog"], 2, ((0, 1), (2, 4))),
        ([["cat", "dog"], "owl"], 2, ((0, 1, 2, 4), 5)),  # the class comes before the group of its name
        ("cat", None, ((0, 1), (0, 1))),
        ("tiger cat|pug", None, ((1, 4), (1, 4))),
        ("cat| 5", None, ((0, 1, 5), (0, 1, 5))),
        ("a|b", None, (3, 3)),  # the name of a class
        (ClassGroup(["tabby", 2]), None, ((0, 2), (0, 2))),
        (ClassGroup([1]), None, (1, 1)),
    ],
)
def test_targets(target, count: int | None, resolved: tuple[object, ...]) -> None:
    query = parse_target(target, margin)
    assert isinstance(query, ClassQuery)
    assert (count_targets(query), query.resolve(NET, SCORES_OUTPUT)) == (count, resolved)


def test_a_part_of_a_batch_keeps_its_group() -> None:
    query = select_inputs(parse_target(["owl", ["tabby", "pug"]], margin), slice(1, 2))
    assert isinstance(query, ClassQuery)
    assert query.name == "tabby | pug"
    assert query.resolve(NET, SCORES_OUTPUT[:1]) == ((0, 4),)


def test_a_mixed_batch_is_scored_row_by_row() -> None:
    x = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1))
    with NET.frozen() as run:
        scores = parse_target([3, [0, 4]], margin).bind(run, x)(torch.cat([x, x]), torch.tensor([0, 1, 1, 0]))
    flat = x.flatten(1)
    members = encode_classes([(0, 4)], flat)
    assert scores[0] == margin(flat[:1], torch.tensor([3]))
    assert scores[1] == margin(flat[1:], members)
    assert scores[2] == margin(flat[:1], members)
    assert scores[3] == margin(flat[1:], torch.tensor([3]))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([[]], "a group must hold at least one class, got an empty list; name its classes"),
        (
            [["tabby", "tgier cat"]],
            "target must be a class of toy, got 'tgier cat'; nearest: tiger cat",
        ),
        ("tabby|tgier cat", "target must be a class of toy, got 'tgier cat'; nearest: tiger cat"),
        ("cats", "target must be a class of toy, got 'cats'; nearest groups of classes: cat"),
        (
            [["pug", "tabby", 4]],
            "a group must hold each class once, got pug (class 4) twice in pug | tabby | class 4; leave one out",
        ),
        ("cat|tabby", "a group must hold each class once, got tabby (class 0) twice in cat | tabby; leave one out"),
        (
            [list(range(6))],
            "a group must leave out a class to be compared with, got all 6 classes of toy; leave one out",
        ),
        ("tabby|", "a group must name a class on each side of |, got 'tabby|'; e.g. 'tabby|tiger cat'"),
        ([[0, 6]], "target must lie in 0..5 for toy, got 6; classes are counted from 0"),
        ([[0, [1, 2]]], "a class of a group must be given by its index or name, got [1, 2]; groups are lists of these"),
        ([[0, True]], "a class of a group must be given by its index or name, got True; groups are lists of these"),
        (
            torch.tensor([[0, 1], [2, 3]]),
            "a tensor of targets must hold a class for each input, (N,), got shape (2, 2); a group of classes is a "
            "list inside a list",
        ),
    ],
)
def test_invalid_groups(target, message: str) -> None:
    def resolve() -> None:
        query = parse_target(target, margin)
        assert isinstance(query, ClassQuery)
        query.resolve(NET, SCORES_OUTPUT)

    assert message_of(resolve).partition("; nearest groups")[0] == message.partition("; nearest groups")[0]
    assert ("nearest groups" in message) == ("nearest groups" in message_of(resolve))


def test_a_group_is_a_list() -> None:
    assert message_of(ClassGroup, "cat") == (
        "a group must be a list of class indices or names, got 'cat'; e.g. ['tabby', 'tiger cat']"
    )


class TestCallableScores:
    def test_one_that_takes_single_classes_refuses_a_group(self) -> None:
        def largest(output: Tensor, target: Tensor) -> Tensor:
            return logit(output, target)

        assert parse_target([0, 1], largest).resolve(NET, SCORES_OUTPUT) == (0, 1)  # type: ignore[attr-defined]
        assert message_of(parse_target(["tabby", ["pug", "owl"]], largest).resolve, NET, SCORES_OUTPUT) == (  # type: ignore[attr-defined]
            "a score must take groups of classes to be asked about one, largest takes single classes only, got "
            "pug | owl; use score='margin', or mark a score that takes (B, classes) bool with scores.accept_groups"
        )

    def test_one_that_is_marked_takes_it(self) -> None:
        @accept_groups
        def share(output: Tensor, target: Tensor) -> Tensor:
            return (output * target).sum(1)

        with NET.frozen() as run:
            x = torch.arange(6.0).view(1, 1, 6)
            scores = parse_target([["pug", "owl"]], share).bind(run, x)(x, torch.tensor([0]))
        assert scores.tolist() == [9.0]


class TestText:
    @pytest.mark.parametrize(
        ("text", "parsed"),
        [
            ("", None),
            ("3", 3),
            ("owl", 5),
            ("a|b", 3),
            ("a|b|owl", None),
            ("tabby | tiger cat", ClassGroup((0, 1))),
            ("CAT", ClassGroup((0, 1))),
            ("4|0", ClassGroup((0, 4))),
            ("cat|dog", ClassGroup((0, 1, 2, 4))),
        ],
    )
    def test_a_class_or_a_group(self, text: str, parsed: int | ClassGroup | None) -> None:
        if text == "a|b|owl":
            with pytest.raises(ExtremalError, match="target must be a class of toy, got 'a'"):
                parse_class(NET, text)
        else:
            assert parse_class(NET, text) == parsed

    @pytest.mark.parametrize("ask", ["box", "box:1,2,3,4", "segment"])
    def test_other_queries_take_a_single_class(self, ask: str) -> None:
        assert message_of(parse_query, NET, "cat", ask) == (
            f"--ask {ask.partition(':')[0]} must be about a single class, got the group --target 'cat'; name one of "
            "its classes"
        )

    def test_a_network_without_class_names(self) -> None:
        net = Network(nn.Flatten(), name="toy")
        assert parse_class(net, "2|0") == ClassGroup((0, 2))
        assert net.label((0, 2)) == "class 0 | class 2"
