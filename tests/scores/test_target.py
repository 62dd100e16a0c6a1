"""Targets that users pass, parsed into queries."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal import Network
from extremal.scores import Classes, ClassGroup, PerInput
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import logit
from extremal.scores.query import CallableQuery
from extremal.scores.target import Target, count_targets, expand_inputs, parse_target, select_inputs
from support.errors import message_of

NET = Network(nn.Flatten(), labels=("cat", "dog", "owl"), name="toy")
OUTPUT = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]])


def height(output: Tensor) -> Tensor:
    return output.sum(1)


@pytest.mark.parametrize(
    ("target", "count", "indices"),
    [
        (None, None, (1, 0)),
        (2, None, (2, 2)),
        ("dog", None, (1, 1)),
        (torch.tensor(1), None, (1, 1)),
        ([2, "cat"], 2, (2, 0)),
        ((0, 1), 2, (0, 1)),
        (range(1, 3), 2, (1, 2)),
        (torch.tensor([0, 2]), 2, (0, 2)),
    ],
)
def test_classes(target: Target, count: int | None, indices: tuple[int, ...]) -> None:
    query = parse_target(target, logit)
    assert isinstance(query, ClassQuery)
    assert (count_targets(query), query.resolve(NET, OUTPUT)) == (count, indices)
    assert not query.depends_on_position


def test_a_part_of_a_batch_is_asked_its_own_targets() -> None:
    query = select_inputs(parse_target(["cat", "dog", "owl"], logit), slice(1, 3))
    assert isinstance(query, ClassQuery)
    assert query.resolve(NET, OUTPUT) == (1, 2)
    pair = select_inputs(parse_target([height, Classes({0: 1.0})], logit), slice(1, 2))
    assert isinstance(pair, PerInput)
    assert (len(pair), type(pair.queries[0])) == (1, Classes)
    single = parse_target(height, logit)
    assert select_inputs(single, slice(0, 1)) is single


def test_other_queries_pass_unchanged() -> None:
    query = Classes({0: 1.0})
    assert parse_target(query, logit) is query
    assert isinstance(parse_target(height, logit), CallableQuery)


@pytest.mark.parametrize(("target", "shape"), [([0, 1], (2, 1, 4)), (1, (1, 1, 4)), (None, (1, 1, 4))])
def test_one_input_is_repeated_once_per_target(target: Target, shape: tuple[int, ...]) -> None:
    assert expand_inputs(torch.zeros(1, 1, 4), parse_target(target, logit)).shape == shape


@pytest.mark.parametrize(("inputs", "count"), [(2, 3), (3, 2), (2, 0), (1, 0)])
def test_another_number_of_targets(inputs: int, count: int) -> None:
    message = message_of(expand_inputs, torch.zeros(inputs, 1, 4), parse_target([0] * count, logit))
    assert message == f"target must be one class, or one for each of {inputs} inputs, got {count}"


@pytest.mark.parametrize("target", [1.5, b"cat", {0: 1}])
def test_another_type(target: object) -> None:
    message = message_of(parse_target, target, logit)
    assert message == (
        f"target must be a class index, a class name or a callable on the output, got {type(target).__name__}"
    )


@pytest.mark.parametrize("value", [np.array([0, 1]), torch.tensor(0.0), torch.tensor(True), True, 1.5])
def test_another_class_in_a_list(value: object) -> None:
    query = parse_target([value], logit)  # type: ignore[list-item]
    message = message_of(query.resolve, NET, OUTPUT[:1])  # type: ignore[attr-defined]
    kind = type(value).__name__
    assert message == f"target must be a class index, a class name or a callable on the output, got {kind}"
    message = message_of(ClassGroup, [value])
    assert message.startswith("a class of a group must be given by its index or name, got ")


def test_bound_classes_score_each_row_by_its_input() -> None:
    x = OUTPUT.view(2, 1, 3)
    with NET.frozen() as run:
        bound = parse_target([2, 0], logit).bind(run, x)
        scores = bound(torch.cat([x, x]), torch.tensor([0, 1, 1, 0]))
    assert scores.tolist() == [2.0, 4.0, 1.0, 1.0]
