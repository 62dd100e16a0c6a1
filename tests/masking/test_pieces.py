"""Pieces of regions: connected parts against a naive flood fill, and halves."""

import pytest
import torch
from torch import Tensor

from extremal.masking.pieces import connected_parts, divide, group_places, halve


def flood_fill(region: Tensor) -> list[set[tuple[int, ...]]]:
    """Return connected parts, naively."""
    left, parts = {tuple(place) for place in region.nonzero().tolist()}, []
    while left:
        part, frontier = set(), [min(left)]
        while frontier:
            place = frontier.pop()
            if place in left:
                left.remove(place)
                part.add(place)
                for axis in range(len(place)):
                    for step in (-1, 1):
                        frontier.append((*place[:axis], place[axis] + step, *place[axis + 1 :]))
        parts.append(part)
    return parts


@pytest.mark.parametrize("shape", [(40,), (12, 17), (1, 9), (5, 6, 7)])
@pytest.mark.parametrize("density", [0.0, 0.3, 0.6, 1.0])
def test_parts_are_those_of_a_flood_fill(shape: tuple[int, ...], density: float) -> None:
    region = torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))) < density
    parts = connected_parts(region)
    places = [{tuple(place) for place in torch.stack(torch.unravel_index(part, shape), 1).tolist()} for part in parts]
    assert places == flood_fill(region)


def test_a_winding_part_is_one() -> None:
    snake = torch.zeros(21, 21)
    snake[::2] = 1
    for row in range(1, 21, 2):
        snake[row, 0 if row % 4 == 1 else 20] = 1
    (part,) = connected_parts(snake)
    assert len(part) == int(snake.sum())


def test_groups_of_labels() -> None:
    labels = torch.tensor([[3, -1, 3], [0, 0, -1]])
    assert [group.tolist() for group in group_places(labels)] == [[3, 4], [0, 2]]
    assert group_places(torch.full((2, 2), -1)) == []


def test_halves_lie_across_the_longer_axis() -> None:
    piece = torch.arange(40).view(4, 10)[1:3, 2:8].flatten()
    first, second = halve(piece, (4, 10))
    assert sorted(first.tolist()) == [12, 13, 14, 22, 23, 24]
    assert sorted(torch.cat([first, second]).tolist()) == sorted(piece.tolist())
    across = halve(piece, (4, 10), spacing=(10.0, 1.0))  # rows are far apart
    assert [half.tolist() for half in across] == [list(range(12, 18)), list(range(22, 28))]


def test_a_piece_is_not_halved_if_a_half_would_be_too_small() -> None:
    piece = torch.arange(6)
    assert len(halve(piece, (6,), smallest=3)) == 2
    assert len(halve(piece, (6,), smallest=4)) == 1
    assert len(halve(torch.tensor([5]), (4, 4))) == 1


def test_divided_pieces_cover_the_region() -> None:
    region = torch.rand(30, 30, generator=torch.Generator().manual_seed(0)) < 0.7
    pieces = divide(connected_parts(region), (30, 30), largest=20, smallest=4)
    assert max(map(len, pieces)) <= 20
    together = torch.cat(pieces)
    assert together.sort().values.tolist() == region.flatten().nonzero()[:, 0].tolist()
